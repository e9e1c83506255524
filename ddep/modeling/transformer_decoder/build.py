"""The registry of transformer decoders, and how a config chooses one."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import nn

from ddep.errors import UserError

TRANSFORMER_DECODER_REGISTRY = Registry("TRANSFORMER_MODULE")
TRANSFORMER_DECODER_REGISTRY.__doc__ = """
Transformer decoders, called with (cfg, in_channels, mask_classification).
"""


def build_transformer_decoder(
    cfg: CfgNode, in_channels: int, mask_classification: bool = True
) -> nn.Module:
    """Build the transformer decoder ``MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME``.

    Args:
        cfg: the config.
        in_channels: channels of the features it attends to.
        mask_classification: predict a class for each mask.

    Raises:
        UserError: no transformer decoder of that name is registered.
    """
    name = cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME
    if name not in TRANSFORMER_DECODER_REGISTRY:
        known = sorted(known for known, _ in TRANSFORMER_DECODER_REGISTRY)
        raise UserError(
            f"MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME is {name!r}; "
            f"expected one of {', '.join(known)}"
        )
    return TRANSFORMER_DECODER_REGISTRY.get(name)(cfg, in_channels, mask_classification)
