"""DETR-DC5's backbone: a ResNet whose last stage keeps the stride of the one before."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, build_resnet_backbone
from detectron2.modeling.backbone import ResNet


@BACKBONE_REGISTRY.register()
def build_dc5_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """detectron2's ResNet with ``res5`` at stride 16, dilated as in torchvision.

    detectron2's own RES5_DILATION 2 dilates every block of the stage. In torchvision, and so in
    DETR's published DC5 models (arXiv 2005.12872, section 4), the first block has no dilation.

    Args:
        cfg: the whole config; reads MODEL.RESNETS and MODEL.BACKBONE.FREEZE_AT. The depth is at
            least 50: smaller ResNets cannot be dilated in detectron2.
        input_shape: of the images.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.RESNETS.RES5_DILATION = 2
    backbone = build_resnet_backbone(cfg, input_shape)
    first = backbone.res5[0].conv2
    first.dilation = first.padding = (1, 1)
    return backbone
