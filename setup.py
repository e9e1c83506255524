"""Installs the ``ddep`` package.

No package index has detectron2 under its own name, so it is not in the list below, but everything
that it imports is. ``tools/install-detectron2.py`` installs it.

The operators (``ddep/ops/csrc``) are compiled against the PyTorch that is installed, hence
``pip install -e . --no-build-isolation``. Environment variables:

* ``DDEP_OPS=reference`` compiles nothing; ``DDEP_OPS=compiled`` fails if nothing can be compiled.
* CUDA kernels are compiled where a GPU is visible; ``FORCE_CUDA=1`` compiles them without one.
* ``CUDA_HOME``, ``TORCH_CUDA_ARCH_LIST``, ``CXX`` and ``MAX_JOBS`` mean what they mean to PyTorch.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).parent

INSTALL_REQUIRES = [
    "numpy>=1.26",
    "opencv-python-headless>=4.8",
    "packaging>=22",
    "pillow>=11",
    "pyyaml>=5.1",
    "safetensors>=0.4",
    "scipy>=1.11",
    "timm>=1.0.31",
    "torch>=2.6",
    "torchvision>=0.21",
    # what detectron2 imports, within the ranges that it states
    "cloudpickle>=2",
    "fvcore>=0.1.5.post20221221,<0.1.6",
    "hydra-core>=1.3",
    "iopath>=0.1.9,<0.1.10",
    "matplotlib>=3.7",
    "omegaconf>=2.3,<2.4",
    "pycocotools>=2.0.7",
    "tabulate>=0.9",
    "tensorboard>=2.14",
    "termcolor>=2",
    "tqdm>=4.60",
    "yacs>=0.1.8",
]

# ``tools/export.py --to onnx``.
EXPORT_REQUIRES = [
    "onnx>=1.17",
    "onnxruntime>=1.20",
    "onnxscript>=0.3",
]

# ``tools/web.py``.
WEB_REQUIRES = ["gradio>=6.1"]

# References that the tests compare with (torchmetrics, transformers), and their tools.
DEV_REQUIRES = [
    *EXPORT_REQUIRES,
    *WEB_REQUIRES,
    "clang-format>=18",
    "hypothesis>=6.80",
    "playwright>=1.49",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "ruff>=0.8",
    "torchmetrics>=1.4",
    "transformers>=5",
]


def read_version() -> str:
    """Return the version in ``ddep/__init__.py`` without importing it, which would need torch."""
    text = (HERE / "ddep" / "__init__.py").read_text("utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE).group(1)


def why_not_compiled() -> str:
    """Return why the operators cannot be compiled, or an empty string."""
    choice = os.environ.get("DDEP_OPS", "")
    if choice not in ("", "compiled", "reference"):
        sys.exit(f"error: DDEP_OPS is '{choice}'; expected 'compiled', 'reference' or nothing")
    if choice == "reference":
        return "DDEP_OPS is 'reference'"
    try:
        import torch  # noqa: F401
    except ImportError:
        return "there is no PyTorch here (install it first and add --no-build-isolation)"
    from torch.utils.cpp_extension import get_cxx_compiler

    if not shutil.which(get_cxx_compiler()):
        return f"there is no C++ compiler '{get_cxx_compiler()}' (Debian, Ubuntu: apt install g++)"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers are missing (Debian, Ubuntu: apt install python3-dev)"
    return ""


def why_no_cuda() -> str:
    """Return why the CUDA kernels cannot be compiled, or an empty string."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    force = os.environ.get("FORCE_CUDA", "0")
    if force not in ("0", "1"):
        sys.exit(f"error: FORCE_CUDA is '{force}'; expected 1, 0 or nothing")
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA"
    if force == "0" and not torch.cuda.is_available():
        return "no GPU is visible (FORCE_CUDA=1 compiles them anyway)"
    if not CUDA_HOME or not Path(CUDA_HOME, "bin", "nvcc").is_file():
        missing = "there is no CUDA toolkit (set CUDA_HOME to the folder that holds bin/nvcc)"
        if force == "1":
            sys.exit(f"error: FORCE_CUDA is 1, but {missing}")
        return missing
    if force == "1":
        return ""
    nvcc = Path(CUDA_HOME, "bin", "nvcc")
    output = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release (\d+)", output)
    if not release or release.group(1) != torch.version.cuda.split(".")[0]:
        found = release.group(0) if release else output.strip()
        return f"the toolkit is of {found}, PyTorch of CUDA {torch.version.cuda} (set CUDA_HOME)"
    return ""


def arguments_for_nvcc() -> list[str]:
    """Return the arguments of nvcc."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    arguments = ["-O3"]
    if not Path(CUDA_HOME or "", "include", "cusparse.h").is_file():
        # PyTorch's packages have the headers that some toolkits lack, but also others that do not
        # belong to this toolkit, so these folders are searched last.
        packages = Path(torch.__file__).parents[1].glob("nvidia/*/include")
        arguments += [f"-Xcompiler=-idirafter,{path}" for path in sorted(packages)]
    return arguments


def operators() -> Extension:
    """Return the extension module ``ddep._C``."""
    from torch.utils.cpp_extension import CppExtension, CUDAExtension, get_cxx_compiler

    folder = Path("ddep/ops/csrc")
    sources = [*folder.glob("*.cpp"), *folder.glob("cpu/*.cpp")]
    headers = [*folder.rglob("*.h"), *folder.rglob("*.cuh")]
    missing = why_no_cuda()
    compile_arguments = {"cxx": ["-O3"], "nvcc": [] if missing else arguments_for_nvcc()}
    link_arguments = []
    if sys.platform == "linux":
        # Fused multiply-add, GCC's default, keeps digits of places (csrc/cpu/bilinear.h).
        compile_arguments["cxx"] += ["-fopenmp", "-ffp-contract=fast"]
        # GCC's OpenMP is not linked: PyTorch brings it, and a second copy would not know the
        # number of threads that PyTorch uses.
        version = [get_cxx_compiler(), "--version"]
        if "clang" in subprocess.run(version, capture_output=True, text=True, check=True).stdout:
            link_arguments.append("-fopenmp")
    if missing:
        print(f"note: the CUDA kernels are not compiled: {missing}", file=sys.stderr)
    else:
        sources += folder.glob("cuda/*.cu")
    return (CppExtension if missing else CUDAExtension)(
        "ddep._C",
        sorted(map(str, sources)),
        depends=sorted(map(str, headers)),
        define_macros=[] if missing else [("DDEP_WITH_CUDA", None)],
        extra_compile_args=compile_arguments,
        extra_link_args=link_arguments,
    )


def what_to_compile() -> dict[str, object]:
    """Return setup's arguments that compile the operators, or warn that they will be missing."""
    missing = why_not_compiled()
    if missing and os.environ.get("DDEP_OPS") == "compiled":
        sys.exit(f"error: DDEP_OPS is 'compiled', but {missing}")
    if missing:
        print(
            "warning: the operators are not compiled, slower ones in plain PyTorch run instead: "
            f"{missing}",
            file=sys.stderr,
        )
        return {}
    from torch.utils.cpp_extension import BuildExtension

    return {"ext_modules": [operators()], "cmdclass": {"build_ext": BuildExtension}}


setup(
    name="ddep",
    version=read_version(),
    description="Decoder Denoising Pretraining for Mask2Former-style models, on detectron2",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["ddep", "ddep.*"]),
    package_data={"ddep.data.datasets": ["tables/*.csv"]},
    install_requires=INSTALL_REQUIRES,
    extras_require={"dev": DEV_REQUIRES, "export": EXPORT_REQUIRES, "web": WEB_REQUIRES},
    **what_to_compile(),
)
