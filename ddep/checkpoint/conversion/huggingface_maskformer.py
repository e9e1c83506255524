"""Hugging Face's MaskFormer (``MaskFormerForInstanceSegmentation``)."""

from __future__ import annotations

from typing import Any

from ddep.checkpoint.conversion.entries import Entries, Settings, Weights, children, find
from ddep.checkpoint.conversion.huggingface_backbone import (
    backbone_config,
    check_backbone,
)
from ddep.checkpoint.conversion.huggingface_keys import (
    DETR_SETTINGS,
    DETR_SIZES,
    FEATURES,
    MASKFORMER_SETTINGS,
    MASKFORMER_SIZES,
    ours,
    require,
    section,
)
from ddep.checkpoint.conversion.huggingface_names import MASKFORMER

LOOKED_FOR = "model.transformer_module.queries_embedder.weight and mask_embedder.0.0.weight"

_PIXEL_DECODER = "sem_seg_head.pixel_decoder."
_PREDICTOR = "sem_seg_head.predictor."


def recognises(weights: Weights) -> bool:
    """Whether these are the weights of Hugging Face's MaskFormer."""
    return {*LOOKED_FOR.split(" and ")} <= weights.keys()


def entries(weights: Weights, settings: Settings) -> Entries:
    """All weights under MaskFormer's names.

    Raises:
        UserError: a part of a weight is missing, or the backbone is neither Swin nor ResNet.
    """
    found = MASKFORMER.entries(weights)
    check_backbone(weights, found)
    return found


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """The config keys that describe the model.

    Sizes come from the shapes of the weights. Other values, such as the number of attention heads,
    come from ``settings`` or are the defaults of Hugging Face's class.

    Raises:
        UserError: this project does not have this variant of the model.
    """
    decoder = section(settings, "decoder_config")
    require(
        decoder,
        {"model_type": "detr", "activation_function": "relu", "position_embedding_type": "sine"},
        "MaskFormer has",
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
        "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
        "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "StandardTransformerDecoder",
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res5",
        "MODEL.MASK_FORMER.ENC_LAYERS": 0,
        "MODEL.MASK_FORMER.PRE_NORM": False,
        **{key: sizes[theirs] for theirs, key in {**MASKFORMER_SIZES, **DETR_SIZES}.items()},
        **ours(MASKFORMER_SETTINGS, settings),
        **ours(DETR_SETTINGS, decoder),
    }


def _sizes(found: Weights) -> dict[str, Any]:
    """Hugging Face's config keys, from the shapes of the weights under our names."""
    layers = f"{_PREDICTOR}transformer.decoder.layers."
    mask_dim, conv_dim, _, _ = find(found, f"{_PIXEL_DECODER}mask_features.weight", 4).shape
    num_queries, hidden_dim = find(found, f"{_PREDICTOR}query_embed.weight", 2).shape
    return {
        "fpn_feature_size": conv_dim,
        "mask_feature_size": mask_dim,
        "d_model": hidden_dim,
        "decoder_layers": children(found, layers),
        "decoder_ffn_dim": len(find(found, f"{layers}0.linear1.bias", 1)),
        "num_queries": num_queries,
    }
