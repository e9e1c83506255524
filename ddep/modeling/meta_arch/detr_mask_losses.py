"""What DETR's mask head learns from: targets as large as the padded images, and the losses."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor
from torch.nn import functional as F

from ddep.errors import UserError
from ddep.modeling.mask_losses import DenseMaskLosses
from ddep.modeling.meta_arch.mask_classifier import annotations, name_of


def padded_masks(inputs: dict[str, Any], images: ImageList, device: torch.device) -> Tensor:
    """The masks of a training sample, padded like the images; (T, H, W) bool on ``device``.

    Raises:
        UserError: the sample has no masks.
    """
    instances = annotations(inputs)
    if not instances.has("gt_masks"):
        raise UserError(
            f"{name_of(inputs)}: no `gt_masks`, which MODEL.MASK_ON needs; train on a data set "
            "with masks, or set the key to False"
        )
    masks = instances.gt_masks.tensor.to(device)
    (height, width), (padded_height, padded_width) = masks.shape[-2:], images.tensor.shape[-2:]
    return F.pad(masks, (0, padded_width - width, 0, padded_height - height))


def summed_mask_losses(logits: Tensor, masks: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Focal and dice loss of matched masks (DETR, arXiv 2005.12872, section 4.4).

    Args:
        logits: (N, h, w) float32.
        masks: (T, H, W) bool, of the padded images' size, to which logits are resized.
        targets: (N,) int64, the row of ``masks`` of each pair.

    Returns:
        Two scalars, summed over pairs.
    """
    rows = torch.arange(len(logits), device=logits.device)[None]
    focal, dice = DenseMaskLosses()(
        [logits[None]], torch.zeros_like(rows), rows, masks, targets[None]
    )
    return focal.sum(), dice.sum()
