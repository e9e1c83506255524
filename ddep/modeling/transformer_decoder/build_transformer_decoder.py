"""The registry of transformer decoders, and the choice of one by the config."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import nn

from ddep.errors import UserError

TRANSFORMER_DECODER_REGISTRY = Registry("TRANSFORMER_MODULE")
TRANSFORMER_DECODER_REGISTRY.__doc__ = """
Transformer decoders, called with (cfg, in_channels, mask_classification).
"""


# MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE for all three scales of the pixel decoder.
MULTI_SCALE = "multi_scale_pixel_decoder"


def transformer_decoder_name(cfg: CfgNode) -> str:
    """The name of the transformer decoder that the config asks for.

    MaskFormer's configs do not have MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME: its default
    ``auto`` is MaskFormer's decoder if there is one feature to attend to, and Mask2Former's if
    there are several scales.

    Raises:
        UserError: no transformer decoder of that name is registered.
    """
    name = cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME
    if name == "auto":
        several = cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE == MULTI_SCALE
        return "MultiScaleMaskedTransformerDecoder" if several else "StandardTransformerDecoder"
    if name not in TRANSFORMER_DECODER_REGISTRY:
        known = sorted(known for known, _ in TRANSFORMER_DECODER_REGISTRY)
        raise UserError(
            f"MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME is {name!r}; "
            f"expected auto or one of {', '.join(known)}"
        )
    return name


def is_mask_former(cfg: CfgNode) -> bool:
    """Whether the transformer decoder is MaskFormer's rather than Mask2Former's.

    Raises:
        UserError: see :func:`transformer_decoder_name`.
    """
    return transformer_decoder_name(cfg) == "StandardTransformerDecoder"


def build_transformer_decoder(
    cfg: CfgNode, in_channels: int, mask_classification: bool = True
) -> nn.Module:
    """Build the transformer decoder; see :func:`transformer_decoder_name`.

    Args:
        cfg: the config.
        in_channels: channels of the features it attends to.
        mask_classification: predict a class for each mask.

    Raises:
        UserError: no transformer decoder of that name is registered, or the config does not suit
            it.
    """
    decoder = TRANSFORMER_DECODER_REGISTRY.get(transformer_decoder_name(cfg))
    return decoder(cfg, in_channels, mask_classification)
