"""Losses of matched masks: the functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddep.ops import extension
from ddep.ops.mask_losses_reference import (
    dense_mask_losses_reference,
    point_mask_losses_reference,
)


def point_mask_losses(
    mask_logits: Sequence[Tensor],
    images: Tensor,
    queries: Tensor,
    masks: Tensor,
    targets: Tensor,
    points: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compare matched predicted and true masks at points.

    The mask losses of Mask2Former (Cheng et al., 2022, arXiv 2112.01527, section 3.3). Logits and
    masks are interpolated bilinearly between pixel centres, with zeros outside (``grid_sample``
    without ``align_corners``); a NaN point is outside. With the logit x and the mask m at a point,
    and p = sigmoid(x), the cross entropy is the mean over points of ``softplus(x) - x m`` and the
    dice loss is ``1 - (2 sum(p m) + 1) / (sum(p) + sum(m) + 1)``.

    The gradient is that of ``mask_logits``; the compiled operator has only first derivatives. It
    keeps nothing but its arguments for the backward pass, and on the CPU its results are the same
    for any number of threads. If a sampled logit is NaN or infinite, the pair's losses are not
    finite.

    Args:
        mask_logits: of L layers, (B, Q, h, w) floating each, all of one dtype and shape.
        images: (L, N) int64, the image of each pair.
        queries: (L, N) int64, its query.
        masks: (T, H, W) bool or uint8, values 0 and 1; the targets of all images, side by side.
        targets: (L, N) int64, the target of each pair, a row of ``masks``.
        points: (L, N, P, 2) floating, x and y as fractions of width and height.

    Returns:
        Cross entropy and dice loss, (L, N) each: float64 for float64 logits, float32 for others.

    Raises:
        ValueError: an argument's shape, dtype or device does not fit the others', or an index on
            the CPU is out of range.
    """
    if extension.use_compiled(mask_logits[0].device.type):
        run = torch.ops.ddep.point_mask_losses
    else:
        run = point_mask_losses_reference
    return run(mask_logits, images, queries, masks, targets, points)


def dense_mask_losses(
    mask_logits: Sequence[Tensor],
    images: Tensor,
    queries: Tensor,
    masks: Tensor,
    targets: Tensor,
) -> tuple[Tensor, Tensor]:
    """Compare matched predicted and true masks at all pixels of the true masks.

    The mask losses of MaskFormer (Cheng et al., 2021, arXiv 2107.06278, section 3.3): the focal
    loss (arXiv 1708.02002, equation 5, with gamma 2 and alpha 0.25), averaged over pixels, and the
    dice loss. Logits are brought to the masks' size bilinearly, as ``interpolate`` does without
    ``align_corners``. Padding counts, as in MaskFormer. The compiled operator never stores the
    resized logits.

    Args:
        mask_logits, images, queries, masks, targets: as in :func:`point_mask_losses`.

    Returns:
        Focal and dice loss, as in :func:`point_mask_losses`, with gradients as there.

    Raises:
        ValueError: as in :func:`point_mask_losses`.
    """
    if extension.use_compiled(mask_logits[0].device.type):
        run = torch.ops.ddep.dense_mask_losses
    else:
        run = dense_mask_losses_reference
    return run(mask_logits, images, queries, masks, targets)
