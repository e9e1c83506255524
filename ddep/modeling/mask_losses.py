"""The losses of matched masks, at points or at all pixels.

Both kinds are called with the matched predictions of L layers, N each, (N, h, w) logits; the
targets of all images, ``masks`` (T, H, W) bool or uint8; and ``rows`` (L, N) int64, the target of
each prediction. Both return the mask loss and the dice loss of each, two float32 tensors of (L, N).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.projects.point_rend.point_features import (
    get_uncertain_point_coords_with_randomness,
    point_sample,
)
from torch import Tensor
from torch.nn import functional as F

from ddep.ops.mask_costs_reference import FOCAL_ALPHA
from ddep.ops.point_sampling_reference import sample_masks


class PointMaskLosses:
    """Binary cross entropy and dice loss at points, most of them where a prediction is uncertain.

    Mask2Former (arXiv 2112.01527), section 3.3; PointRend (arXiv 1912.08193), section 3.1.
    """

    def __init__(
        self, *, num_points: int, oversample_ratio: float, importance_sample_ratio: float
    ) -> None:
        """
        Args:
            num_points: points per mask.
            oversample_ratio: this many times ``num_points`` candidates are drawn uniformly.
            importance_sample_ratio: the part of the points that are the most uncertain candidates;
                the rest is drawn uniformly.
        """
        self.num_points = num_points
        self.oversample_ratio = oversample_ratio
        self.importance_sample_ratio = importance_sample_ratio

    def draw_points(self, mask_logits: Tensor) -> Tensor:
        """Draw points for predicted masks (N, 1, h, w), more of them where a logit is near 0.

        Returns:
            (N, num_points, 2), x and y in [0, 1].
        """
        return get_uncertain_point_coords_with_randomness(
            mask_logits,
            lambda logits: -logits.abs(),
            self.num_points,
            self.oversample_ratio,
            self.importance_sample_ratio,
        )

    def __call__(
        self, mask_logits: Sequence[Tensor], masks: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        # Every layer has equally many pairs, so all layers' masks are handled together.
        stacked = torch.cat(list(mask_logits))[:, None].float()
        with torch.no_grad():
            points = self.draw_points(stacked)
            labels = sample_masks(masks, rows.flatten(), points)
        # Points are relative to the size, so predictions need not be brought to the masks' size.
        logits = point_sample(stacked, points, align_corners=False).squeeze(1)
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)
        return losses.view(rows.shape), dice_loss(logits, labels).view(rows.shape)


class DenseMaskLosses:
    """Focal and dice loss over all pixels of the batch (MaskFormer, arXiv 2107.06278, section 3.3).

    Predictions are brought to the masks' size bilinearly. Padding counts, as in MaskFormer.
    """

    def __call__(
        self, mask_logits: Sequence[Tensor], masks: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        focal, dice = [], []
        size = masks.shape[-2:]
        masks = masks.flatten(1).bool()
        for coarse_logits, rows_of_layer in zip(mask_logits, rows, strict=True):
            logits = F.interpolate(
                coarse_logits[:, None].float(), size=size, mode="bilinear", align_corners=False
            ).flatten(1)
            labels = masks[rows_of_layer]
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
