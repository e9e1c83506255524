"""The ``config.json`` and ``preprocessor_config.json`` of Hugging Face's models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from ddep.checkpoint.conversion.huggingface_keys import (
    DETR_SETTINGS,
    DETR_SIZES,
    FEATURES,
    MASK2FORMER_SETTINGS,
    MASK2FORMER_SIZES,
    MASKFORMER_SETTINGS,
    MASKFORMER_SIZES,
    RESNET_SETTINGS,
    STAGES,
    SWIN_SETTINGS,
    SWIN_SIZES,
)
from ddep.checkpoint.conversion.huggingface_mask2former import ENCODER_FEEDFORWARD_DIM
from ddep.checkpoint.conversion.resnet import DEPTHS
from ddep.export.huggingface_requirements import require, value

_COMMON = {
    "MODEL.BACKBONE.NAME": ["D2SwinTransformer", "build_resnet_backbone"],
    "MODEL.SEM_SEG_HEAD.NAME": ["MaskFormerHead"],
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": [FEATURES],
    "MODEL.SEM_SEG_HEAD.NORM": ["GN"],
    "INPUT.FORMAT": ["RGB"],
}
_MASK2FORMER = {
    "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": [FEATURES[1:]],
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": ["multi_scale_pixel_decoder"],
    "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": ["MultiScaleMaskedTransformerDecoder", "auto"],
}
_MASKFORMER = {
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": ["res5"],
    "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": ["StandardTransformerDecoder", "auto"],
    "MODEL.MASK_FORMER.ENC_LAYERS": [0],
    "MODEL.MASK_FORMER.PRE_NORM": [False],
    "MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ": [False],
}
_SWIN = {
    "MODEL.SWIN.APE": [False],
    "MODEL.SWIN.PATCH_NORM": [True],
    "MODEL.SWIN.QK_SCALE": [None],
}
_RESNET = {
    "MODEL.RESNETS.NUM_GROUPS": [1],
    "MODEL.RESNETS.RES5_DILATION": [1],
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [[False] * 4],
}


def mask2former_config(cfg: CfgNode) -> dict[str, Any]:
    """The content of a Mask2Former's ``config.json``, without its labels.

    Raises:
        UserError: Hugging Face does not have this variant of the model.
    """
    require(cfg, {**_COMMON, **_MASK2FORMER})
    return {
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "model_type": "mask2former",
        "activation_function": "relu",
        "encoder_feedforward_dim": ENCODER_FEEDFORWARD_DIM,
        "feature_strides": [4, 8, 16, 32],
        **_values(cfg, MASK2FORMER_SIZES, MASK2FORMER_SETTINGS),
        "backbone_config": _backbone_config(cfg),
    }


def maskformer_config(cfg: CfgNode) -> dict[str, Any]:
    """The content of a MaskFormer's ``config.json``, without its labels.

    Raises:
        UserError: Hugging Face does not have this variant of the model.
    """
    require(cfg, {**_COMMON, **_MASKFORMER})
    dropout = cfg.MODEL.MASK_FORMER.DROPOUT
    return {
        "architectures": ["MaskFormerForInstanceSegmentation"],
        "model_type": "maskformer",
        **_values(cfg, MASKFORMER_SIZES, MASKFORMER_SETTINGS),
        # Independent of DEEP_SUPERVISION: with it, Hugging Face's class fails to predict unless
        # hidden states are requested (transformers 5.23), and published models do not have it.
        "use_auxiliary_loss": False,
        "backbone_config": _backbone_config(cfg),
        "decoder_config": {
            "model_type": "detr",
            **_values(cfg, DETR_SIZES, DETR_SETTINGS),
            # MaskFormer has one rate for all three.
            "attention_dropout": dropout,
            "activation_dropout": dropout,
        },
    }


def processor_config(cfg: CfgNode, name: str) -> dict[str, Any]:
    """The settings of an image processor that treats images as evaluation does.

    One difference remains: to reach a multiple of ``size_divisor``, Hugging Face's processor
    stretches a resized image, where ours is padded.
    """
    divisor = cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY
    if divisor < 0:  # the backbone's own
        divisor = 32 if cfg.MODEL.BACKBONE.NAME == "D2SwinTransformer" else 0
    return {
        "image_processor_type": name,
        "do_resize": cfg.INPUT.MIN_SIZE_TEST > 0,
        "size": {
            "shortest_edge": cfg.INPUT.MIN_SIZE_TEST,
            "longest_edge": cfg.INPUT.MAX_SIZE_TEST,
        },
        "size_divisor": divisor,
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [mean / 255 for mean in cfg.MODEL.PIXEL_MEAN],
        "image_std": [std / 255 for std in cfg.MODEL.PIXEL_STD],
        "ignore_index": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        "do_reduce_labels": False,
        "num_labels": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
    }


def _backbone_config(cfg: CfgNode) -> dict[str, Any]:
    specific = _swin(cfg) if cfg.MODEL.BACKBONE.NAME == "D2SwinTransformer" else _resnet(cfg)
    return {**specific, "num_channels": 3, "out_features": STAGES}


def _swin(cfg: CfgNode) -> dict[str, Any]:
    require(cfg, _SWIN)
    return {
        "model_type": "swin",
        "hidden_act": "gelu",
        "image_size": cfg.MODEL.SWIN.PRETRAIN_IMG_SIZE,
        **_values(cfg, SWIN_SIZES, SWIN_SETTINGS),
    }


def _resnet(cfg: CfgNode) -> dict[str, Any]:
    require(cfg, _RESNET)
    resnet = cfg.MODEL.RESNETS
    blocks, bottleneck = next(shape for shape, depth in DEPTHS.items() if depth == resnet.DEPTH)
    # Hugging Face's bottlenecks have a quarter of the channels.
    width = resnet.RES2_OUT_CHANNELS // (4 if bottleneck else 1)
    require(cfg, {"MODEL.RESNETS.WIDTH_PER_GROUP": [width]})
    return {
        "model_type": "resnet",
        "hidden_act": "relu",
        "layer_type": "bottleneck" if bottleneck else "basic",
        "embedding_size": resnet.STEM_OUT_CHANNELS,
        "hidden_sizes": [resnet.RES2_OUT_CHANNELS * 2**stage for stage in range(4)],
        "depths": list(blocks),
        "downsample_in_first_stage": False,
        **_values(cfg, {}, RESNET_SETTINGS),
    }


def _values(
    cfg: CfgNode, sizes: Mapping[str, str], settings: Mapping[str, tuple[str, Any]]
) -> dict[str, Any]:
    """Hugging Face's keys with our values."""
    keys = {**sizes, **{theirs: key for theirs, (key, _) in settings.items()}}
    return {theirs: value(cfg, key) for theirs, key in keys.items()}
