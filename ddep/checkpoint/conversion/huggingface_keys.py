"""Tables of Hugging Face's config keys and ours with the same meaning, used in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddep.checkpoint.conversion.entries import Settings
from ddep.errors import UserError

_HEAD = "MODEL.SEM_SEG_HEAD."
_MASK_FORMER = "MODEL.MASK_FORMER."
_SWIN = "MODEL.SWIN."

FEATURES = ["res2", "res3", "res4", "res5"]
STAGES = ["stage1", "stage2", "stage3", "stage4"]

# Keys whose values follow from the shapes of the weights ...
MASK2FORMER_SIZES = {
    "feature_size": f"{_HEAD}CONVS_DIM",
    "mask_feature_size": f"{_HEAD}MASK_DIM",
    "encoder_layers": f"{_HEAD}TRANSFORMER_ENC_LAYERS",
    "hidden_dim": f"{_MASK_FORMER}HIDDEN_DIM",
    "num_attention_heads": f"{_MASK_FORMER}NHEADS",
    "decoder_layers": f"{_MASK_FORMER}DEC_LAYERS",
    "dim_feedforward": f"{_MASK_FORMER}DIM_FEEDFORWARD",
    "num_queries": f"{_MASK_FORMER}NUM_OBJECT_QUERIES",
    "enforce_input_projection": f"{_MASK_FORMER}ENFORCE_INPUT_PROJ",
}
# ... and keys that only config.json determines, with our keys and the default values.
MASK2FORMER_SETTINGS: dict[str, tuple[str, Any]] = {
    "pre_norm": (f"{_MASK_FORMER}PRE_NORM", False),
    "dropout": (f"{_MASK_FORMER}DROPOUT", 0.0),
    "common_stride": (f"{_HEAD}COMMON_STRIDE", 4),
    "ignore_value": (f"{_HEAD}IGNORE_VALUE", 255),
    "no_object_weight": (f"{_MASK_FORMER}NO_OBJECT_WEIGHT", 0.1),
    "class_weight": (f"{_MASK_FORMER}CLASS_WEIGHT", 2.0),
    "mask_weight": (f"{_MASK_FORMER}MASK_WEIGHT", 5.0),
    "dice_weight": (f"{_MASK_FORMER}DICE_WEIGHT", 5.0),
    "train_num_points": (f"{_MASK_FORMER}TRAIN_NUM_POINTS", 12544),
    "oversample_ratio": (f"{_MASK_FORMER}OVERSAMPLE_RATIO", 3.0),
    "importance_sample_ratio": (f"{_MASK_FORMER}IMPORTANCE_SAMPLE_RATIO", 0.75),
    "use_auxiliary_loss": (f"{_MASK_FORMER}DEEP_SUPERVISION", True),
}

MASKFORMER_SIZES = {
    "fpn_feature_size": f"{_HEAD}CONVS_DIM",
    "mask_feature_size": f"{_HEAD}MASK_DIM",
}
MASKFORMER_SETTINGS: dict[str, tuple[str, Any]] = {
    "no_object_weight": (f"{_MASK_FORMER}NO_OBJECT_WEIGHT", 0.1),
    "cross_entropy_weight": (f"{_MASK_FORMER}CLASS_WEIGHT", 1.0),
    "mask_weight": (f"{_MASK_FORMER}MASK_WEIGHT", 20.0),
    "dice_weight": (f"{_MASK_FORMER}DICE_WEIGHT", 1.0),
}
# MaskFormer's transformer decoder, below decoder_config.
DETR_SIZES = {
    "d_model": f"{_MASK_FORMER}HIDDEN_DIM",
    "decoder_layers": f"{_MASK_FORMER}DEC_LAYERS",
    "decoder_ffn_dim": f"{_MASK_FORMER}DIM_FEEDFORWARD",
    "num_queries": f"{_MASK_FORMER}NUM_OBJECT_QUERIES",
}
DETR_SETTINGS: dict[str, tuple[str, Any]] = {
    "decoder_attention_heads": (f"{_MASK_FORMER}NHEADS", 8),
    "dropout": (f"{_MASK_FORMER}DROPOUT", 0.1),
}

# The backbone's, below backbone_config.
SWIN_SIZES = {
    "patch_size": f"{_SWIN}PATCH_SIZE",
    "embed_dim": f"{_SWIN}EMBED_DIM",
    "depths": f"{_SWIN}DEPTHS",
    "num_heads": f"{_SWIN}NUM_HEADS",
    "window_size": f"{_SWIN}WINDOW_SIZE",
    "mlp_ratio": f"{_SWIN}MLP_RATIO",
    "qkv_bias": f"{_SWIN}QKV_BIAS",
}
SWIN_SETTINGS: dict[str, tuple[str, Any]] = {
    "hidden_dropout_prob": (f"{_SWIN}DROP_RATE", 0.0),
    "attention_probs_dropout_prob": (f"{_SWIN}ATTN_DROP_RATE", 0.0),
    "drop_path_rate": (f"{_SWIN}DROP_PATH_RATE", 0.1),
}
RESNET_SETTINGS: dict[str, tuple[str, Any]] = {
    "downsample_in_bottleneck": ("MODEL.RESNETS.STRIDE_IN_1X1", False),
}


def ours(keys: Mapping[str, tuple[str, Any]], settings: Settings) -> dict[str, Any]:
    """Translate settings of ``config.json`` to our keys and values.

    Args:
        keys: one of the tables above.
        settings: the content of ``config.json``, or of one of its sections.

    Raises:
        UserError: a value is of another type than its default.
    """
    return {
        key: _number(theirs, settings.get(theirs, default), default)
        for theirs, (key, default) in keys.items()
    }


def require(
    settings: Settings, expected: Mapping[str, Any], reason: str, file: str = "config.json"
) -> None:
    """Check settings without a key of ours, because we support only one value.

    Args:
        settings: the content of ``file``, or of one of its sections.
        expected: keys and the supported values.
        reason: the middle of the message: what supports only these values.
        file: where ``settings`` come from.

    Raises:
        UserError: a setting is present and has another value.
    """
    for key, value in expected.items():
        found = settings.get(key, value)
        if (list(found) if isinstance(found, (list, tuple)) else found) != value:
            raise UserError(f"{file} has {key} {found!r}; {reason} {value!r}")


def section(settings: Settings, key: str) -> Settings:
    """The section below ``key``; empty if there is none.

    Raises:
        UserError: it is not a dict.
    """
    found = settings.get(key) or {}
    if not isinstance(found, dict):
        raise UserError(f"config.json has {key} {found!r}; expected keys and values")
    return found


def _number(key: str, value: Any, default: Any) -> Any:
    if type(value) is type(default):
        return value
    if type(default) is float and type(value) is int:
        return float(value)
    raise UserError(f"config.json has {key} {value!r}; expected a value such as {default}")
