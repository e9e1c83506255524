"""Costs of matching predicted masks with true masks, at random points or at all pixels.

Both kinds are called with the predictions of L layers, (B, Q, h, w) logits each; ``masks``
(T, H, W) bool or uint8, the targets of all images side by side, padded to the batch's size; and
``num_targets``, how many each image has. Both return the costs of all pairs of a query and a
target of the same image, as two tensors of (L, Q, T): the cost that follows the mask loss, and the
dice loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddep.ops import dense_mask_costs, draw_seed, point_mask_costs, uniform_points


class PointMaskCosts:
    """Binary cross entropy and dice loss at points (Mask2Former, arXiv 2112.01527, section 3.3).

    The points are drawn uniformly and are the same for all masks of an image.
    """

    def __init__(self, num_points: int = 112 * 112) -> None:
        """
        Args:
            num_points: points at which the masks of an image are compared.
        """
        self.num_points = num_points

    def draw_points(self, num_images: int, device: torch.device) -> Tensor:
        """Draw each image's points: (num_images, num_points, 2), uniform in [0, 1).

        Layers share them: their costs then differ by their predictions alone, and the targets are
        sampled once.
        """
        return uniform_points(draw_seed(), num_images, self.num_points, device)

    def __call__(
        self, mask_logits: Sequence[Tensor], masks: Tensor, num_targets: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        points = self.draw_points(len(num_targets), masks.device)
        return point_mask_costs(mask_logits, masks, num_targets, points)


class DenseMaskCosts:
    """Focal and dice loss over all predicted pixels (MaskFormer, arXiv 2107.06278, section 3.2)."""

    def __call__(
        self, mask_logits: Sequence[Tensor], masks: Tensor, num_targets: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        return dense_mask_costs(mask_logits, masks, num_targets)
