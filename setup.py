"""Installs the ``ddep`` package.

detectron2 is on no package index under its own name, so it is not in the list below, but everything
that it imports is. ``tools/install-detectron2.py`` installs it.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

INSTALL_REQUIRES = [
    "numpy>=1.26",
    "opencv-python-headless>=4.8",
    "packaging",
    "pillow>=10",
    "safetensors>=0.4",
    "scipy>=1.11",
    "timm>=1.0",
    "torch>=2.4",
    "torchvision>=0.19",
    # detectron2's own, in the ranges that it states
    "cloudpickle",
    "fvcore>=0.1.5,<0.1.6",
    "hydra-core>=1.1",
    "iopath>=0.1.7,<0.1.10",
    "matplotlib>=3.7",
    "omegaconf>=2.1,<2.4",
    "pycocotools>=2.0.7",
    "tabulate",
    "tensorboard>=2.14",
    "termcolor>=1.1",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
]

# References that the tests compare with (torchmetrics, transformers), and their tools.
DEV_REQUIRES = ["hypothesis", "pytest>=8", "ruff", "torchmetrics>=1.4", "transformers>=4.45"]


def read_version() -> str:
    """Return the version in ``ddep/__init__.py``, without importing it (that needs torch)."""
    text = (HERE / "ddep" / "__init__.py").read_text("utf-8")
    return re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE).group(1)


setup(
    name="ddep",
    version=read_version(),
    description="Decoder Denoising Pretraining for Mask2Former-style models, on detectron2",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["ddep", "ddep.*"]),
    install_requires=INSTALL_REQUIRES,
    extras_require={"dev": DEV_REQUIRES},
)
