"""Models: backbones, pixel decoders, transformer decoders, heads and meta-architectures.

Importing this registers all of them with detectron2's registries.
"""

from ddep.modeling import (
    anchors,
    backbone,
    mask_former_head,
    meta_arch,
    per_pixel_head,
    pixel_decoder,
    transformer_decoder,
)

__all__ = [
    "anchors",
    "backbone",
    "mask_former_head",
    "meta_arch",
    "per_pixel_head",
    "pixel_decoder",
    "transformer_decoder",
]
