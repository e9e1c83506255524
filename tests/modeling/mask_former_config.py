"""Configs of Mask2Former's and MaskFormer's models for tests."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec

from ddep.config import add_ddep_config

FEATURES = ["res2", "res3", "res4", "res5"]

COCO_R50 = {
    "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": FEATURES,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 133,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256,
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 6,
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
    "MODEL.MASK_FORMER.DROPOUT": 0.0,
    "MODEL.MASK_FORMER.DEC_LAYERS": 10,
}
# The same sizes as tests.huggingface_map.small_config.
SMALL = {
    **COCO_R50,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 5,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 64,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 48,
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 2,
    "MODEL.MASK_FORMER.HIDDEN_DIM": 64,
    "MODEL.MASK_FORMER.NHEADS": 4,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 96,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 10,
    "MODEL.MASK_FORMER.DEC_LAYERS": 8,
}
# The first MaskFormer: its configs leave the transformer decoder and the losses to the defaults.
MASKFORMER_ADE20K_R50 = {
    "MODEL.META_ARCHITECTURE": "MaskFormer",
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.OUT_FEATURES": FEATURES,
    "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": FEATURES,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 133,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 256,
    "MODEL.SEM_SEG_HEAD.NORM": "GN",
    "MODEL.MASK_FORMER.DROPOUT": 0.0,
}
# The same sizes as tests.huggingface_maskformer_map.maskformer(small=True).
MASKFORMER_SMALL = {
    **MASKFORMER_ADE20K_R50,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 16,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 16,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 5,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 48,
    "MODEL.MASK_FORMER.HIDDEN_DIM": 64,
    "MODEL.MASK_FORMER.NHEADS": 4,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 96,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 10,
    "MODEL.MASK_FORMER.DEC_LAYERS": 3,
}


def mask_former_config(settings: dict[str, Any]) -> CfgNode:
    """detectron2's and the project's defaults with ``settings``."""
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.merge_from_list([item for setting in settings.items() for item in setting])
    return cfg


def feature_shapes(width: int) -> dict[str, ShapeSpec]:
    """res2 to res5 with ``width``, twice, four and eight times as many channels."""
    return {
        name: ShapeSpec(channels=width * 2**i, stride=4 * 2**i) for i, name in enumerate(FEATURES)
    }
