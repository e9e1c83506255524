"""Bipartite matching between predicted masks and the masks of the ground truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.projects.point_rend.point_features import point_sample
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from ddep.modeling.point_sampling import sample_masks


class HungarianMatcher:
    """Assign a query to every target so that the sum of costs is smallest.

    The cost of a pair is a weighted sum of minus the probability of the target's class, the binary
    cross entropy of the masks and their dice loss. The masks enter through random points, the same
    for all masks of an image, drawn uniformly (Mask2Former, arXiv 2112.01527, section 3.3).

    All decoder layers and images of a batch are matched in one call. Their costs come from the
    device in one copy, so the host waits for the device once per iteration.
    """

    def __init__(
        self,
        *,
        cost_class: float = 1.0,
        cost_mask: float = 1.0,
        cost_dice: float = 1.0,
        num_points: int = 112 * 112,
    ) -> None:
        """
        Args:
            cost_class: weight of the classification cost.
            cost_mask: weight of the binary cross entropy of the masks.
            cost_dice: weight of the dice loss of the masks.
            num_points: points at which the masks of an image are compared.
        """
        self.cost_class = cost_class
        self.cost_mask = cost_mask
        self.cost_dice = cost_dice
        self.num_points = num_points

    @torch.no_grad()
    def __call__(
        self, outputs_of_layers: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Tensor]]
    ) -> list[list[tuple[Tensor, Tensor]]]:
        """Match the predictions of every layer to the targets.

        Args:
            outputs_of_layers: one dict per decoder layer: ``pred_logits`` (B, Q, K+1) and
                ``pred_masks`` (B, Q, h, w), both logits.
            targets: one dict per image: ``labels`` (T,) int64 and ``masks`` (T, H, W) bool or
                uint8, padded to the batch's size.

        Returns:
            For each layer, for each image: the indices of the queries, ascending, and those of the
            targets they were assigned, both (min(Q, T),) int64 on the CPU.

        Raises:
            FloatingPointError: a cost is NaN or infinite, because a prediction is.
        """
        costs = self.compute_costs(outputs_of_layers, targets).cpu().numpy()
        ends = np.cumsum([len(target["labels"]) for target in targets])
        costs_per_image = np.split(costs, ends[:-1], axis=-1)
        return [
            [
                self._assign(costs_of_image[layer], layer, len(costs), image)
                for image, costs_of_image in enumerate(costs_per_image)
            ]
            for layer in range(len(costs))
        ]

    def draw_points(self, num_images: int, device: torch.device) -> Tensor:
        """Draw each image's points: (num_images, num_points, 2), uniform in [0, 1).

        Layers share them: their costs then differ by their predictions alone, and the targets are
        sampled once.
        """
        return torch.rand(num_images, self.num_points, 2, device=device)

    def compute_costs(
        self, outputs_of_layers: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Tensor]]
    ) -> Tensor:
        """Costs of all pairs of a query and a target of the same image.

        Args:
            outputs_of_layers, targets: as for :meth:`__call__`.

        Returns:
            (L, Q, sum of T) float32 on the predictions' device, images side by side.
        """
        device = outputs_of_layers[0]["pred_masks"].device
        with torch.autocast(device.type, enabled=False):
            points = self.draw_points(len(targets), device)
            logits = torch.stack(  # (L, B, Q, P)
                [
                    point_sample(outputs["pred_masks"].float(), points, align_corners=False)
                    for outputs in outputs_of_layers
                ]
            )
            class_logits = torch.stack([outputs["pred_logits"] for outputs in outputs_of_layers])
            probabilities = class_logits.float().softmax(-1)  # (L, B, Q, K+1)
            return torch.cat(
                [
                    self._costs_of_image(
                        probabilities[:, image], logits[:, image], target, points[image]
                    )
                    for image, target in enumerate(targets)
                ],
                dim=-1,
            )

    def _costs_of_image(
        self, probabilities: Tensor, logits: Tensor, target: dict[str, Tensor], points: Tensor
    ) -> Tensor:
        """(L, Q, K+1), (L, Q, P), T targets and (P, 2) -> (L, Q, T)."""
        labels = target["labels"]
        rows = torch.arange(len(labels), device=labels.device)
        masks = sample_masks(target["masks"], rows, points.expand(len(labels), -1, -1))
        return (
            self.cost_class * -probabilities[..., labels]
            + self.cost_mask * pairwise_sigmoid_cross_entropy(logits, masks)
            + self.cost_dice * pairwise_dice_loss(logits, masks)
        )

    @staticmethod
    def _assign(
        costs: np.ndarray, layer: int, num_layers: int, image: int
    ) -> tuple[Tensor, Tensor]:
        if not np.isfinite(costs).all():
            raise FloatingPointError(
                f"matching: a cost of image {image} of the batch in layer {layer} of {num_layers} "
                "is NaN or infinite, because the predictions are; training has diverged: lower "
                "SOLVER.BASE_LR, lengthen the warm-up or clip gradients"
            )
        queries, targets = linear_sum_assignment(costs)
        return torch.as_tensor(queries), torch.as_tensor(targets)


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
