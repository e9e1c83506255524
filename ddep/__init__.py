"""Decoder Denoising Pretraining for Mask2Former-style models, on detectron2.

Importing ``ddep`` registers everything with detectron2's registries.
"""

from __future__ import annotations

import importlib
import os
import warnings
from typing import TYPE_CHECKING, Any

# OpenMP's threads wait for one another by spinning, for milliseconds. Where other programs use the
# cores as well, this makes training on the CPU many times slower. torch reads it on import.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# Warnings about what detectron2 and fvcore still use; they would come on every start.
warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
warnings.filterwarnings("ignore", r"`torch\.cuda\.amp\.", FutureWarning)

from ddep import data as data  # noqa: E402
from ddep import modeling as modeling  # noqa: E402
from ddep import tasks as tasks  # noqa: E402

if TYPE_CHECKING:
    from ddep.inference import Prediction, Predictor

__version__ = "0.1.0"

# What the package gives besides its modules; imported when it is used, not by every command.
_LAZY = {"Predictor": "ddep.inference", "Prediction": "ddep.inference"}
__all__ = ["Prediction", "Predictor"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
