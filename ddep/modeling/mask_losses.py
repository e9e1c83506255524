"""The losses of matched masks, at points or at all pixels.

Both kinds are called with the predictions of L layers, (B, Q, h, w) logits each; N matched pairs of
each layer, ``images`` and ``queries`` (L, N) int64; the targets of all images, ``masks`` (T, H, W)
bool or uint8; and ``targets`` (L, N) int64, the row of ``masks`` that each pair has. Both return
the mask loss and the dice loss of each pair, two float32 tensors of (L, N).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ddep.ops import dense_mask_losses, draw_seed, point_mask_losses, uncertain_points


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

    def draw_points(self, mask_logits: Sequence[Tensor], images: Tensor, queries: Tensor) -> Tensor:
        """Draw each pair's points, more of them where the predicted logit is near 0.

        Returns:
            (L, N, num_points, 2), x and y in [0, 1).
        """
        return uncertain_points(
            mask_logits,
            images,
            queries,
            draw_seed(),
            self.num_points,
            int(self.num_points * self.oversample_ratio),
            int(self.importance_sample_ratio * self.num_points),
        )

    def __call__(
        self,
        mask_logits: Sequence[Tensor],
        images: Tensor,
        queries: Tensor,
        masks: Tensor,
        targets: Tensor,
    ) -> tuple[Tensor, Tensor]:
        points = self.draw_points(mask_logits, images, queries)
        return point_mask_losses(mask_logits, images, queries, masks, targets, points)


class DenseMaskLosses:
    """Focal and dice loss over all pixels (MaskFormer, arXiv 2107.06278, section 3.3)."""

    def __call__(
        self,
        mask_logits: Sequence[Tensor],
        images: Tensor,
        queries: Tensor,
        masks: Tensor,
        targets: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return dense_mask_losses(mask_logits, images, queries, masks, targets)
