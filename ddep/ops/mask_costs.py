"""Costs of matching predicted with true masks: the functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddep.ops import extension
from ddep.ops.mask_costs_reference import dense_mask_costs_reference, point_mask_costs_reference


def point_mask_costs(
    mask_logits: Sequence[Tensor], masks: Tensor, num_targets: Sequence[int], points: Tensor
) -> tuple[Tensor, Tensor]:
    """Compare every query with every target of its image at points.

    The costs of masks in Mask2Former's matching (Cheng et al., 2022, arXiv 2112.01527, section
    3.3). Logits and masks are interpolated bilinearly between pixel centres, with zeros outside
    (``grid_sample`` without ``align_corners``). With the logit x and the mask m at a point, and
    p = sigmoid(x), the cross entropy is the mean over points of ``softplus(x) - x m`` and the dice
    loss is ``1 - (2 sum(p m) + 1) / (sum(p) + sum(m) + 1)``.

    There is no gradient. The compiled operator keeps nothing of size Q x P; its results are the
    same for any number of threads. If a sampled logit is NaN or infinite, costs of its query are
    not finite.

    Args:
        mask_logits: of L layers, (B, Q, h, w) floating each, all of one dtype and shape.
        masks: (T, H, W) bool or uint8, values 0 and 1; the targets of all images, side by side.
        num_targets: T of each image.
        points: (B, P, 2) floating; x and y as fractions of width and height. All layers, queries
            and targets of an image share its points.

    Returns:
        Cross entropy and dice loss, (L, Q, T) each: float64 for float64 logits, float32 for others.

    Raises:
        ValueError: an argument's shape, dtype or device does not fit the others'.
    """
    if extension.use_compiled(mask_logits[0].device.type):
        return torch.ops.ddep.point_mask_costs(mask_logits, masks, num_targets, points)
    return point_mask_costs_reference(mask_logits, masks, num_targets, points)


def dense_mask_costs(
    mask_logits: Sequence[Tensor], masks: Tensor, num_targets: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Compare every query with every target of its image at all predicted pixels.

    The costs of masks in MaskFormer's matching (Cheng et al., 2021, arXiv 2107.06278, section 3.2):
    the focal loss (arXiv 1708.02002, equation 5, with gamma 2 and alpha 0.25), averaged over
    pixels, and the dice loss. Masks are brought to the predictions' size by nearest neighbours.

    Args:
        mask_logits, masks, num_targets: as in :func:`point_mask_costs`.

    Returns:
        Focal and dice loss, as in :func:`point_mask_costs`.

    Raises:
        ValueError: as in :func:`point_mask_costs`.
    """
    if extension.use_compiled(mask_logits[0].device.type):
        return torch.ops.ddep.dense_mask_costs(mask_logits, masks, num_targets)
    return dense_mask_costs_reference(mask_logits, masks, num_targets)
