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
    "packaging>=22",
    "pillow>=11",
    "pyyaml>=5.1",
    "safetensors>=0.4",
    "scipy>=1.11",
    "timm>=1.0.31",
    "torch>=2.4",
    "torchvision>=0.19",
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

# References that the tests compare with (torchmetrics, transformers), and their tools.
DEV_REQUIRES = [
    "hypothesis>=6.80",
    "pytest>=8",
    "ruff>=0.8",
    "torchmetrics>=1.4",
    "transformers>=5",
]


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
