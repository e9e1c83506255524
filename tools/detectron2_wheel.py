"""Build a pure-Python wheel of detectron2 0.5 that works with today's libraries.

The source package holds detectron2's Python files and three of its projects (PointRend, DeepLab,
Panoptic-DeepLab) but not the C++ sources, so it cannot be built as it is. A list of named fixes
replaces what NumPy, Pillow, setuptools and matplotlib have since removed or forbidden, and the
compiled ops raise a clear error when used.

This runs before detectron2 and the project are installed, so it uses neither.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

# The local version marks the project's build: the code of 0.5 without compiled ops.
VERSION = "0.5+ddep.pure"

PYPROJECT = f"""\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "detectron2"
version = "{VERSION}"
description = "detectron2 0.5 without its compiled ops, fixed for current NumPy and Pillow"
readme = "NOTICE.md"
license = "Apache-2.0"
license-files = ["LICENSE"]
authors = [{{ name = "FAIR" }}]
urls = {{ Homepage = "https://github.com/facebookresearch/detectron2" }}
requires-python = ">=3.10"
dependencies = [
  "Pillow>=7.1", "matplotlib", "pycocotools>=2.0.2", "termcolor>=1.1", "yacs>=0.1.6", "tabulate",
  "cloudpickle", "tqdm>4.29.0", "tensorboard", "fvcore>=0.1.5,<0.1.6", "iopath>=0.1.7,<0.1.10",
  "omegaconf>=2.1", "hydra-core>=1.1",
]

[tool.setuptools.packages.find]
include = ["detectron2*"]
namespaces = false

[tool.setuptools.package-data]
"detectron2.model_zoo" = ["configs/**/*"]
"""

NOTICE = """\
The Python code of detectron2 0.5 (https://github.com/facebookresearch/detectron2), packed by DDeP's
`tools/install-detectron2.py`. It differs from the original in these points:

"""

UNCOMPILED = '''\
"""Stands in for detectron2's compiled extension, which this pure-Python build lacks."""


class _Uncompiled:
    def __getattr__(self, name):
        if name.startswith("__"):  # introspection, not a use of an op
            raise AttributeError(name)
        raise ImportError(
            "{0} is a compiled op, and this detectron2 is a pure-Python build without those; "
            "install https://github.com/facebookresearch/detectron2 to use it".format(name)
        )


_C = _Uncompiled()
'''


class WheelError(Exception):
    """The wheel cannot be built. The message is one line."""


@dataclass(frozen=True)
class Fix:
    """One replacement of text, made in each of ``files`` (paths below ``detectron2/``)."""

    what: str
    pattern: str
    replacement: str
    files: tuple[str, ...]

    def apply(self, package: Path) -> None:
        """Fix the files below ``package``.

        Raises:
            WheelError: a file is missing or does not contain the pattern.
        """
        for name in self.files:
            path = package / name
            if not path.is_file():
                raise WheelError(f"fix '{self.what}': detectron2/{name} is not in the source")
            text, count = re.subn(self.pattern, self.replacement, path.read_text("utf-8"))
            if not count:
                raise WheelError(f"fix '{self.what}': {self.pattern!r} is not in detectron2/{name}")
            path.write_text(text, "utf-8")


FIXES = (
    Fix(
        "np.bool, np.float, np.int and np.str, removed in NumPy 1.24, are Python's own types",
        r"\bnp\.(bool|float|int|str)\b",
        r"\1",
        (
            "data/build.py",
            "data/datasets/pascal_voc.py",
            "evaluation/pascal_voc_evaluation.py",
            "evaluation/sem_seg_evaluation.py",
            "structures/masks.py",
            "utils/video_visualizer.py",
            "utils/visualizer.py",
        ),
    ),
    Fix(
        "Image.LINEAR, removed in Pillow 10, is Image.BILINEAR",
        r"\bImage\.LINEAR\b",
        "Image.BILINEAR",
        ("data/transforms/transform.py",),
    ),
    Fix(
        "pkg_resources, removed in setuptools 81, is not imported for a path",
        r"\bimport pkg_resources\n",
        "from importlib import resources\n",
        ("model_zoo/model_zoo.py",),
    ),
    Fix(
        "the path of a built-in config comes from importlib.resources",
        r'pkg_resources\.resource_filename\(\s*"detectron2\.model_zoo", '
        r'os\.path\.join\("configs", config_path\)\s*\)',
        'str(resources.files("detectron2.model_zoo") / "configs" / config_path)',
        ("model_zoo/model_zoo.py",),
    ),
    Fix(
        "the compiled ops raise an error when used, not when detectron2 is imported",
        r"(?m)^from detectron2 import _C$",
        "from detectron2.uncompiled import _C",
        (
            "evaluation/fast_eval_api.py",
            "layers/deform_conv.py",
            "layers/roi_align_rotated.py",
            "layers/rotated_boxes.py",
        ),
    ),
    Fix(
        "the log says that there are no compiled ops, not that building them failed",
        r'f"not built correctly: \{e\}"',
        '"not built: this detectron2 is pure Python"',
        ("utils/collect_env.py",),
    ),
    Fix(
        "a colour that rounding put outside [0, 1] (Python 3.10) is not refused by matplotlib",
        r"(?m)^        return modified_color$",
        "        return tuple(min(max(value, 0.0), 1.0) for value in modified_color)",
        ("utils/visualizer.py",),
    ),
)


def build_pure_wheel(sdist: Path, wheel_dir: Path) -> Path:
    """Build the wheel from the source package ``sdist`` and return its path in ``wheel_dir``.

    Raises:
        WheelError: the source is not the one that the fixes are for, or the build fails.
    """
    with tempfile.TemporaryDirectory(prefix="detectron2-") as work:
        shutil.unpack_archive(str(sdist), work)
        (source,) = (path for path in Path(work).iterdir() if path.is_dir())
        prepare_source(source)
        return _run_pip_wheel(source, wheel_dir)


def prepare_source(source: Path) -> None:
    """Turn the unpacked source package into one that builds to a pure-Python wheel."""
    package = source / "detectron2"
    # setup.py would compile; the wheel's own pyproject.toml says everything that is left.
    for name in ("setup.py", "setup.cfg"):
        (source / name).unlink(missing_ok=True)
    for project in ("PointRend/point_rend", "DeepLab/deeplab", "Panoptic-DeepLab/panoptic_deeplab"):
        shutil.move(source / "projects" / project, package / "projects")
    for fix in FIXES:
        fix.apply(package)
    (package / "uncompiled.py").write_text(UNCOMPILED, "utf-8")
    (source / "pyproject.toml").write_text(PYPROJECT, "utf-8")
    (source / "NOTICE.md").write_text(NOTICE + "".join(f"- {fix.what}\n" for fix in FIXES), "utf-8")


def _run_pip_wheel(source: Path, wheel_dir: Path) -> Path:
    wheel_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "--wheel-dir", str(wheel_dir), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        lines = (result.stderr or result.stdout).strip().splitlines()
        raise WheelError(f"pip could not build the wheel: {lines[-1] if lines else 'no output'}")
    (wheel,) = wheel_dir.glob(f"detectron2-{VERSION}-*.whl")
    return wheel
