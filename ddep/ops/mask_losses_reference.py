"""Losses of matched masks, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ddep.ops.point_sampling_reference import sample_masks


def matched_logits(mask_logits: Sequence[Tensor], images: Tensor, queries: Tensor) -> Tensor:
    """Take the matched masks of all layers, (L * N, h, w) float32, or float64 for float64."""
    dtype = torch.promote_types(mask_logits[0].dtype, torch.float32)
    matched = [
        logits[image, query]
        for logits, image, query in zip(mask_logits, images, queries, strict=True)
    ]
    return torch.cat(matched).to(dtype)


def point_mask_losses_reference(
    mask_logits: Sequence[Tensor],
    images: Tensor,
    queries: Tensor,
    masks: Tensor,
    targets: Tensor,
    points: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`ddep.ops.point_mask_losses`, which describes arguments and results."""
    matched = matched_logits(mask_logits, images, queries)
    places = points.to(matched.dtype).flatten(0, 1).nan_to_num(nan=-9.0, posinf=-9.0, neginf=-9.0)
    grid = (2 * places - 1)[:, None]  # grid_sample's [-1, 1]
    logits = F.grid_sample(matched[:, None], grid, align_corners=False).flatten(1)
    labels = sample_masks(masks, targets.flatten(), places)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)
    return losses.view(targets.shape), dice_loss(logits, labels).view(targets.shape)


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Dice loss of each prediction with its target, over points.

    ``1 - (2 sum(p m) + 1) / (sum(p) + sum(m) + 1)``; the ones keep it defined for empty masks.

    Args:
        logits: (N, P) float.
        masks: (N, P) float in [0, 1], or bool.

    Returns:
        (N,).
    """
    probabilities = logits.sigmoid()
    intersection = (probabilities * masks).sum(-1)
    return 1 - (2 * intersection + 1) / (probabilities.sum(-1) + masks.sum(-1) + 1)
