"""What DETR's mask head learns from: targets as large as the padded images, and the losses."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor

from ddep.errors import UserError
from ddep.modeling.mask_losses import DenseMaskLosses
from ddep.modeling.meta_arch.training_samples import annotations, name_of, padded_masks


def target_masks(inputs: dict[str, Any], image_size: tuple[int, int], images: ImageList) -> Tensor:
    """The masks of a training sample, padded like the images; (T, H, W) bool on their device.

    Raises:
        UserError: the sample has no masks.
    """
    instances = annotations(inputs)
    if not instances.has("gt_masks"):
        raise UserError(
            f"{name_of(inputs)}: no `gt_masks`, which MODEL.MASK_ON needs; train on a data set "
            "with masks, or set the key to False"
        )
    return padded_masks(instances.gt_masks.tensor, inputs, image_size, images)


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
