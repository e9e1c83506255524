"""Encoders: Swin Transformer, any model of timm, and detectron2's ResNets and variants of them."""

from ddep.modeling.backbone.dc5_resnet import build_dc5_resnet_backbone
from ddep.modeling.backbone.swin import D2SwinTransformer
from ddep.modeling.backbone.timm_backbone import TimmBackbone
from ddep.modeling.backbone.whitened_resnet import (
    WHITENED,
    build_whitened_resnet_backbone,
    build_whitened_resnet_deeplab_backbone,
)

__all__ = [
    "WHITENED",
    "D2SwinTransformer",
    "TimmBackbone",
    "build_dc5_resnet_backbone",
    "build_whitened_resnet_backbone",
    "build_whitened_resnet_deeplab_backbone",
]
