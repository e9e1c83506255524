"""Hugging Face's Mask2Former (``Mask2FormerForUniversalSegmentation``)."""

from __future__ import annotations

from typing import Any

from ddep.checkpoint.conversion.entries import Entries, Settings, Weights, children, find
from ddep.checkpoint.conversion.huggingface_backbone import (
    backbone_config,
    check_backbone,
)
from ddep.checkpoint.conversion.huggingface_keys import (
    FEATURES,
    MASK2FORMER_SETTINGS,
    MASK2FORMER_SIZES,
    ours,
    require,
)
from ddep.checkpoint.conversion.huggingface_names import MASK2FORMER
from ddep.errors import UserError

LOOKED_FOR = "model.transformer_module.queries_features.weight"

# Hidden channels of the deformable encoder's feed-forward networks, fixed in Mask2Former.
ENCODER_FEEDFORWARD_DIM = 1024
_POINTS_PER_HEAD = 3 * 4  # of three levels

_PIXEL_DECODER = "sem_seg_head.pixel_decoder."
_PREDICTOR = "sem_seg_head.predictor."


def recognises(weights: Weights) -> bool:
    """Whether these are the weights of Hugging Face's Mask2Former."""
    return LOOKED_FOR in weights


def entries(weights: Weights, settings: Settings) -> Entries:
    """All weights under Mask2Former's names.

    Raises:
        UserError: a part of a weight is missing, or the backbone is neither Swin nor ResNet.
    """
    found = MASK2FORMER.entries(weights)
    check_backbone(weights, found)
    return found


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """The config keys that describe the model.

    Sizes come from the shapes of the weights. Other values come from ``settings`` or are the
    defaults of Hugging Face's class.

    Raises:
        UserError: this project does not have this variant of the model.
    """
    require(
        settings,
        {"activation_function": "relu", "feature_strides": [4, 8, 16, 32]},
        "Mask2Former has",
    )
    found = entries(weights, settings)
    names = {name: entry.tensor for name, entry in found.items()}
    sizes = _sizes(names)
    return {
        "MODEL.META_ARCHITECTURE": "MaskFormer",
        **backbone_config(found, settings),
        "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
        "MODEL.SEM_SEG_HEAD.IN_FEATURES": FEATURES,
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": len(find(names, f"{_PREDICTOR}class_embed.bias", 1)) - 1,
        "MODEL.SEM_SEG_HEAD.NORM": "GN",
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
        "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "MultiScaleMaskedTransformerDecoder",
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
        **{key: sizes[theirs] for theirs, key in MASK2FORMER_SIZES.items()},
        **ours(MASK2FORMER_SETTINGS, settings),
    }


def _sizes(found: Weights) -> dict[str, Any]:
    """Hugging Face's config keys, from the shapes of the weights under our names."""
    encoder = f"{_PIXEL_DECODER}transformer.encoder.layers."
    feedforward = len(find(found, f"{encoder}0.linear1.bias", 1))
    if feedforward != ENCODER_FEEDFORWARD_DIM:
        raise UserError(
            f"the pixel decoder's feed-forward networks have {feedforward} channels; Mask2Former's "
            f"have {ENCODER_FEEDFORWARD_DIM}"
        )
    mask_dim, conv_dim, _, _ = find(found, f"{_PIXEL_DECODER}mask_features.weight", 4).shape
    num_queries, hidden_dim = find(found, f"{_PREDICTOR}query_feat.weight", 2).shape
    attention = len(find(found, f"{encoder}0.self_attn.attention_weights.bias", 1))
    layers = f"{_PREDICTOR}transformer_ffn_layers."
    return {
        "feature_size": conv_dim,
        "mask_feature_size": mask_dim,
        "encoder_layers": children(found, encoder),
        "hidden_dim": hidden_dim,
        "num_attention_heads": attention // _POINTS_PER_HEAD,
        # Both count the predictions of the queries themselves.
        "decoder_layers": children(found, layers) + 1,
        "dim_feedforward": len(find(found, f"{layers}0.linear1.bias", 1)),
        "num_queries": num_queries,
        "enforce_input_projection": conv_dim == hidden_dim
        and f"{_PREDICTOR}input_proj.0.weight" in found,
    }
