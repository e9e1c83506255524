"""Parts shared by the transformer decoders: common arguments and the input projection."""

from __future__ import annotations

import math
from typing import Any

import fvcore.nn.weight_init as weight_init
from detectron2.config import CfgNode
from detectron2.layers import Conv2d
from torch import nn

from ddep.errors import UserError


def common_arguments(cfg: CfgNode, in_channels: int, mask_classification: bool) -> dict[str, Any]:
    """Read the constructor arguments that all transformer decoders share.

    Raises:
        UserError: MODEL.MASK_FORMER.HIDDEN_DIM cannot be divided.
    """
    mask_former = cfg.MODEL.MASK_FORMER
    if mask_former.HIDDEN_DIM % math.lcm(4, mask_former.NHEADS):
        raise UserError(
            f"MODEL.MASK_FORMER.HIDDEN_DIM is {mask_former.HIDDEN_DIM}; expected a multiple of "
            f"4 (position encoding) and of MODEL.MASK_FORMER.NHEADS {mask_former.NHEADS}"
        )
    return {
        "in_channels": in_channels,
        "mask_classification": mask_classification,
        "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        "hidden_dim": mask_former.HIDDEN_DIM,
        "num_queries": mask_former.NUM_OBJECT_QUERIES,
        "nheads": mask_former.NHEADS,
        "dim_feedforward": mask_former.DIM_FEEDFORWARD,
        "pre_norm": mask_former.PRE_NORM,
        "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
        "enforce_input_project": mask_former.ENFORCE_INPUT_PROJ,
    }


def input_projection(in_channels: int, hidden_dim: int, enforce: bool) -> nn.Module:
    """A 1x1 convolution from ``in_channels`` to ``hidden_dim``, or identity if they are equal.

    Args:
        enforce: use a convolution even if they are equal.
    """
    if in_channels == hidden_dim and not enforce:
        return nn.Identity()
    projection = Conv2d(in_channels, hidden_dim, kernel_size=1)
    weight_init.c2_xavier_fill(projection)
    return projection
