"""Choose the pixel decoder that a config names."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from ddep.errors import UserError


def build_pixel_decoder(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Build the pixel decoder ``MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME``.

    Args:
        cfg: the config.
        input_shape: name -> channels and stride of the backbone's features.

    Returns:
        A module whose ``forward`` is its ``forward_features``; see
        :meth:`ddep.modeling.pixel_decoder.MSDeformAttnPixelDecoder.forward_features`.

    Raises:
        UserError: no pixel decoder of that name is registered.
    """
    known = {
        name: decoder
        for name, decoder in SEM_SEG_HEADS_REGISTRY
        if callable(getattr(decoder, "forward_features", None))
    }
    name = cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME
    if name not in known:
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME is {name!r}; "
            f"expected one of {', '.join(sorted(known))}"
        )
    return known[name](cfg, input_shape)


def check_in_features(key: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raise :class:`UserError` if ``names``, the value of ``key``, are not some of ``known``."""
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UserError(f"{key} is {list(names)}; expected some of {', '.join(known)}")
