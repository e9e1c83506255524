"""Decoder Denoising Pretraining for Mask2Former-style models, on detectron2.

Importing ``ddep`` registers everything with detectron2's registries.
"""

__version__ = "0.1.0"
