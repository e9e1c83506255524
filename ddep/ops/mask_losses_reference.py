"""Losses of matched masks, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ddep.ops.mask_costs_reference import FOCAL_ALPHA
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


def dense_mask_losses_reference(
    mask_logits: Sequence[Tensor],
    images: Tensor,
    queries: Tensor,
    masks: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compute :func:`ddep.ops.dense_mask_losses`, which describes arguments and results."""
    focal, dice = [], []
    size = masks.shape[-2:]
    masks = masks.flatten(1).bool()
    # One layer at a time: all together would take gigabytes.
    for layer, predicted in enumerate(mask_logits):
        matched = matched_logits([predicted], images[layer : layer + 1], queries[layer : layer + 1])
        resized = F.interpolate(matched[:, None], size=size, mode="bilinear", align_corners=False)
        logits, labels = resized.flatten(1), masks[targets[layer]]
        focal.append(sigmoid_focal_loss(logits, labels))
        dice.append(dice_loss(logits, labels))
    return torch.stack(focal), torch.stack(dice)


def sigmoid_focal_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Focal loss of each prediction with its target, averaged over pixels.

    RetinaNet (Lin et al., 2017, arXiv 1708.02002), equation 5, with gamma 2 and alpha 0.25: if q is
    the probability that a prediction gives to the wrong answer, its loss is ``-q^2 log(1 - q)``
    times 0.25 inside the mask and 0.75 outside.

    Args:
        logits: (N, P) float.
        masks: (N, P) bool.

    Returns:
        (N,).
    """
    wrong = torch.where(masks, -logits, logits)
    weights = torch.where(masks, FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    return (weights * wrong.sigmoid() ** 2 * F.softplus(wrong)).mean(-1)


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
