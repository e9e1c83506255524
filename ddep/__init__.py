"""Decoder Denoising Pretraining for Mask2Former-style models, on detectron2.

Importing ``ddep`` registers everything with detectron2's registries.
"""

import os
import warnings

# OpenMP's threads wait for one another by spinning, for milliseconds: on two cores that anything
# else uses too, that makes training on the CPU many times slower. Read when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# What detectron2 and fvcore still use, and say so on every start.
warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
warnings.filterwarnings("ignore", r"`torch\.cuda\.amp\.", FutureWarning)

from ddep import data as data  # noqa: E402
from ddep import modeling as modeling  # noqa: E402
from ddep import tasks as tasks  # noqa: E402

__version__ = "0.1.0"
