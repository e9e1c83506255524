"""Encoders: Swin, and any that timm knows. ResNets are detectron2's own."""

from ddep.modeling.backbone.swin import D2SwinTransformer
from ddep.modeling.backbone.timm_backbone import TimmBackbone

__all__ = ["D2SwinTransformer", "TimmBackbone"]
