"""Costs of matching predicted with true masks, in plain PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ddep.ops.point_sampling_reference import sample_masks

Costs = tuple[Tensor, Tensor]

# Weight of the pixels inside a mask; those outside weigh 1 minus this (RetinaNet's value).
FOCAL_ALPHA = 0.25


def _without_autocast(function: Callable[..., Costs]) -> Callable[..., Costs]:
    """Matrix products in the inputs' precision: autocast would lower it."""

    @functools.wraps(function)
    def run(mask_logits: Sequence[Tensor], *arguments: object) -> Costs:
        with torch.autocast(mask_logits[0].device.type, enabled=False):
            return function(mask_logits, *arguments)

    return run


@_without_autocast
def point_mask_costs_reference(
    mask_logits: Sequence[Tensor], masks: Tensor, num_targets: Sequence[int], points: Tensor
) -> Costs:
    """Compute :func:`ddep.ops.point_mask_costs`, which describes arguments and results."""
    _check(mask_logits, masks, num_targets, points)
    dtype = torch.promote_types(mask_logits[0].dtype, torch.float32)
    cross_entropy, dice = [], []
    for image, targets in enumerate(masks.split(list(num_targets))):
        logits = torch.stack([layer[image].to(dtype) for layer in mask_logits])
        of_image = points[image].to(dtype)
        grid = (2 * of_image - 1).expand(len(logits), 1, -1, 2)  # grid_sample's [-1, 1]
        logits = F.grid_sample(logits, grid, align_corners=False).squeeze(2)  # (L, Q, P)
        rows = torch.arange(len(targets), device=targets.device)
        labels = sample_masks(targets, rows, of_image.expand(len(targets), -1, -1))
        cross_entropy.append(pairwise_sigmoid_cross_entropy(logits, labels))
        dice.append(pairwise_dice_loss(logits, labels))
    return torch.cat(cross_entropy, -1), torch.cat(dice, -1)


@_without_autocast
def dense_mask_costs_reference(
    mask_logits: Sequence[Tensor], masks: Tensor, num_targets: Sequence[int]
) -> Costs:
    """Compute :func:`ddep.ops.dense_mask_costs`, which describes arguments and results."""
    _check(mask_logits, masks, num_targets)
    dtype = torch.promote_types(mask_logits[0].dtype, torch.float32)
    size = mask_logits[0].shape[-2:]
    focal, dice = [], []
    for image, targets in enumerate(masks.split(list(num_targets))):
        labels = F.interpolate(targets[:, None].byte(), size=size, mode="nearest")
        labels = labels.flatten(1).to(dtype)
        # One layer of one image at a time: all together would take gigabytes.
        layers = [layer[image].flatten(1).to(dtype) for layer in mask_logits]
        focal.append(torch.stack([pairwise_sigmoid_focal_loss(layer, labels) for layer in layers]))
        dice.append(torch.stack([pairwise_dice_loss(layer, labels) for layer in layers]))
    return torch.cat(focal, -1), torch.cat(dice, -1)


def pairwise_sigmoid_cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross entropy of every prediction with every target, averaged over points.

    Args:
        logits: (..., Q, P) float.
        masks: (T, P) float in [0, 1].

    Returns:
        (..., Q, T).
    """
    if_one = F.softplus(-logits)  # the cross entropy at a point that the mask covers
    if_zero = F.softplus(logits)
    return (if_one @ masks.T + if_zero @ (1 - masks).T) / logits.shape[-1]


def pairwise_sigmoid_focal_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Focal loss of every prediction with every target, averaged over points.

    RetinaNet (Lin et al., 2017, arXiv 1708.02002), equation 5, with gamma 2 and alpha 0.25;
    arguments and result as those of :func:`pairwise_sigmoid_cross_entropy`.
    """
    if_one = FOCAL_ALPHA * (-logits).sigmoid() ** 2 * F.softplus(-logits)
    if_zero = (1 - FOCAL_ALPHA) * logits.sigmoid() ** 2 * F.softplus(logits)
    return (if_one @ masks.T + if_zero @ (1 - masks).T) / logits.shape[-1]


def pairwise_dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Dice loss of every prediction with every target, over points.

    ``1 - (2 sum(p m) + 1) / (sum(p) + sum(m) + 1)``; the ones keep it defined for empty masks.

    Args:
        logits: (..., Q, P) float.
        masks: (T, P) float in [0, 1].

    Returns:
        (..., Q, T).
    """
    probabilities = logits.sigmoid()
    intersection = probabilities @ masks.T
    total = probabilities.sum(-1, keepdim=True) + masks.sum(-1)
    return 1 - (2 * intersection + 1) / (total + 1)


def _check(
    mask_logits: Sequence[Tensor],
    masks: Tensor,
    num_targets: Sequence[int],
    points: Tensor | None = None,
) -> None:
    """The checks of ``csrc/mask_costs.cpp`` that PyTorch's functions do not make themselves."""
    first = mask_logits[0]
    if any(layer.shape != first.shape or layer.dtype != first.dtype for layer in mask_logits):
        raise ValueError("mask costs: mask_logits differ in shape or dtype")
    if masks.dtype not in (torch.bool, torch.uint8):
        raise ValueError(f"mask costs: masks is {masks.dtype}; expected bool or uint8")
    if len(num_targets) != len(first) or sum(num_targets) != len(masks):
        raise ValueError(
            f"mask costs: num_targets is {list(num_targets)}; expected B = {len(first)} numbers "
            f"that sum to masks' T = {len(masks)}"
        )
    if points is not None and (points.dim() != 3 or points.shape[::2] != (len(first), 2)):
        raise ValueError(
            f"mask costs: points has shape {list(points.shape)}; expected (B, P, 2) with "
            f"B = {len(first)}"
        )
