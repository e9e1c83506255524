"""The CUDA source compiles without warnings wherever nvcc is, whether or not there is a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

pytestmark = pytest.mark.native

CSRC = Path(__file__).parents[2] / "ddep" / "ops" / "csrc"


@pytest.fixture(scope="module")
def nvcc() -> str:
    path = shutil.which("nvcc", path=str(Path(cpp_extension.CUDA_HOME or "", "bin")))
    path = path or shutil.which("nvcc")
    if path is None:
        pytest.skip("nvcc is not installed")
    if torch.version.cuda is None:
        pytest.skip("PyTorch was built without CUDA and lacks its headers")
    output = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"release (\d+)", output)
    if release is None or release.group(1) != torch.version.cuda.split(".")[0]:
        pytest.skip(f"nvcc is of another CUDA than PyTorch, which has {torch.version.cuda}")
    return path


def include_paths(nvcc: str) -> list[str]:
    """PyTorch's headers and CUDA's; some toolkits lack a few, which PyTorch's packages hold."""
    toolkit = Path(nvcc).resolve().parents[1] / "include"
    packages = Path(torch.__file__).parents[1].glob("nvidia/*/include")
    return [*cpp_extension.include_paths(), str(toolkit), *map(str, sorted(packages))]


@pytest.mark.parametrize("architecture", ["80", "90"])
@pytest.mark.parametrize("name", sorted(path.name for path in CSRC.glob("cuda/*.cu")))
def test_compiles_without_warnings(nvcc, tmp_path, name, architecture) -> None:
    command = [nvcc, "-std=c++20", "-O3", *cpp_extension.COMMON_NVCC_FLAGS]
    command += ["-gencode", f"arch=compute_{architecture},code=sm_{architecture}"]
    command += ["-Xcompiler", "-fPIC,-Wall,-Wextra"]
    for folder in include_paths(nvcc):
        command += ["-isystem", folder]
    command += ["-c", str(CSRC / "cuda" / name), "-o", str(tmp_path / "kernels.o")]
    result = subprocess.run(command, capture_output=True, text=True)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    # PyTorch's own headers may warn, depending on versions.
    warnings = [line for line in output.splitlines() if "warning" in line and str(CSRC) in line]
    assert not warnings, output
