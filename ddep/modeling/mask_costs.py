"""Costs of matching predicted masks with true masks, at random points or at all pixels.

Both kinds are called with the predictions of L layers and the targets of a batch: one dict per
layer with ``pred_masks`` (B, Q, h, w), logits, and one dict per image with ``masks`` (T, H, W) bool
or uint8, padded to the batch's size. Both return for each image the costs of its Q x T pairs, as
two float32 tensors of (L, Q, T): the cost that follows the mask loss, and the dice loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.projects.point_rend.point_features import point_sample
from torch import Tensor
from torch.nn import functional as F

from ddep.modeling.mask_losses import FOCAL_ALPHA
from ddep.modeling.point_sampling import sample_masks

Layers = Sequence[dict[str, Tensor]]
Targets = Sequence[dict[str, Tensor]]


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
        return torch.rand(num_images, self.num_points, 2, device=device)

    def __call__(self, layers: Layers, targets: Targets) -> list[tuple[Tensor, Tensor]]:
        points = self.draw_points(len(targets), layers[0]["pred_masks"].device)
        logits = torch.stack(  # (L, B, Q, P)
            [
                point_sample(outputs["pred_masks"].float(), points, align_corners=False)
                for outputs in layers
            ]
        )
        costs = []
        for image, target in enumerate(targets):
            rows = torch.arange(len(target["masks"]), device=points.device)
            masks = sample_masks(target["masks"], rows, points[image].expand(len(rows), -1, -1))
            costs.append(
                (
                    pairwise_sigmoid_cross_entropy(logits[:, image], masks),
                    pairwise_dice_loss(logits[:, image], masks),
                )
            )
        return costs


class DenseMaskCosts:
    """Focal and dice loss over all predicted pixels (MaskFormer, arXiv 2107.06278, section 3.2).

    The targets are brought to the predictions' size by nearest neighbours. One layer of one image
    is handled at a time: all together would take gigabytes.
    """

    def __call__(self, layers: Layers, targets: Targets) -> list[tuple[Tensor, Tensor]]:
        costs = []
        for image, target in enumerate(targets):
            size = layers[0]["pred_masks"].shape[-2:]
            masks = F.interpolate(target["masks"][:, None].byte(), size=size, mode="nearest")
            masks = masks.flatten(1).float()
            logits = [outputs["pred_masks"][image].float().flatten(1) for outputs in layers]
            costs.append(
                (
                    torch.stack([pairwise_sigmoid_focal_loss(layer, masks) for layer in logits]),
                    torch.stack([pairwise_dice_loss(layer, masks) for layer in logits]),
                )
            )
        return costs


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

    See :func:`ddep.modeling.mask_losses.sigmoid_focal_loss`; arguments and result as those of
    :func:`pairwise_sigmoid_cross_entropy`.
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
