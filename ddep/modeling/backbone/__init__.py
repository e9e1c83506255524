"""Encoders: Swin Transformer and any model of timm. ResNets come from detectron2."""

from ddep.modeling.backbone.swin import D2SwinTransformer
from ddep.modeling.backbone.timm_backbone import TimmBackbone

__all__ = ["D2SwinTransformer", "TimmBackbone"]
