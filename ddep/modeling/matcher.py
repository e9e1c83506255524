"""Bipartite matching between queries and targets, and its costs for masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ddep.modeling.mask_costs import DenseMaskCosts, PointMaskCosts

# Replaces a cost that is not finite; larger than any real cost.
_NO_COST = 1e9

# With fewer costs than this, starting threads takes longer than they save.
_COSTS_WORTH_THREADS = 50_000

# Indices of matched queries, ascending, and of their targets; both (min(Q, T),) int64.
Pairs = tuple[np.ndarray, np.ndarray]


class Matcher(ABC):
    """Assigns queries to targets so that the sum of costs is smallest.

    All decoder layers and images of a batch are matched in one call. Their costs come from the
    device in one copy, so the host waits for the device once per iteration.
    """

    @abstractmethod
    def compute_costs(
        self,
        outputs_of_layers: Sequence[dict[str, Tensor]],
        labels: Sequence[Tensor],
        shapes: Tensor,
    ) -> Tensor:
        """Compute the costs of all pairs of a query and a target of the same image.

        Args:
            outputs_of_layers: one dict per decoder layer: ``pred_logits`` (B, Q, K+1), logits of
                classes, and what else the costs are computed from.
            labels: (T,) int64 for each image.
            shapes: (sum of T, ...), the targets' masks or boxes of all images side by side.

        Returns:
            (L, Q, sum of T) float32 on the predictions' device, images side by side. Costs of
            predictions that are not finite are not finite.
        """

    def __call__(self, costs: Tensor, num_targets: Sequence[int]) -> list[list[Pairs]]:
        """Match the predictions of every layer to the targets.

        A NaN or infinite cost counts as a high one, so that a matching always exists; the criterion
        makes the loss of such a layer NaN.

        Args:
            costs: (L, Q, sum of T), as :meth:`compute_costs` returns them.
            num_targets: T of each image.

        Returns:
            For each layer, for each image: the indices of the matched queries, ascending, and of
            their targets, both (min(Q, T),) int64.
        """
        finite_costs = np.nan_to_num(
            costs.cpu().numpy(), nan=_NO_COST, posinf=_NO_COST, neginf=_NO_COST
        )
        ends = np.cumsum(num_targets)
        problems = [
            of_image
            for of_layer in finite_costs
            for of_image in np.split(of_layer, ends[:-1], axis=-1)
        ]
        pairs = _assign(problems)
        return [pairs[i : i + len(ends)] for i in range(0, len(pairs), len(ends))]


class HungarianMatcher(Matcher):
    """Matches masks.

    The cost of a pair is a weighted sum of minus the probability of the target's class, the cost of
    the masks and their dice loss.
    """

    def __init__(
        self,
        *,
        mask_costs: PointMaskCosts | DenseMaskCosts,
        cost_class: float = 1.0,
        cost_mask: float = 1.0,
        cost_dice: float = 1.0,
    ) -> None:
        """
        Args:
            mask_costs: see :mod:`ddep.modeling.mask_costs`.
            cost_class: weight of the classification cost.
            cost_mask: weight of the cost that follows the mask loss.
            cost_dice: weight of the dice loss of the masks.
        """
        self.mask_costs = mask_costs
        self.cost_class = cost_class
        self.cost_mask = cost_mask
        self.cost_dice = cost_dice

    @torch.no_grad()
    def compute_costs(
        self,
        outputs_of_layers: Sequence[dict[str, Tensor]],
        labels: Sequence[Tensor],
        masks: Tensor,
    ) -> Tensor:
        """As :meth:`Matcher.compute_costs`.

        Args:
            outputs_of_layers: with ``pred_masks`` (B, Q, h, w), logits.
            labels: (T,) int64 for each image.
            masks: (sum of T, H, W) bool or uint8, padded to the batch's size.
        """
        num_targets = [len(of_image) for of_image in labels]
        with torch.autocast(masks.device.type, enabled=False):
            mask_costs, dice_costs = self.mask_costs(
                [outputs["pred_masks"] for outputs in outputs_of_layers], masks, num_targets
            )
            costs = (
                self.cost_class * class_costs(outputs_of_layers, labels)
                + self.cost_mask * mask_costs
                + self.cost_dice * dice_costs
            )
            return costs.float()


def class_costs(outputs_of_layers: Sequence[dict[str, Tensor]], labels: Sequence[Tensor]) -> Tensor:
    """Minus the probabilities of the targets' classes; see :meth:`Matcher.compute_costs`.

    Returns:
        (L, Q, sum of T) float32.
    """
    class_logits = torch.stack([outputs["pred_logits"] for outputs in outputs_of_layers])
    probabilities = class_logits.float().softmax(-1).unbind(1)  # B of (L, Q, K+1)
    return -torch.cat(
        [p[..., of_image] for p, of_image in zip(probabilities, labels, strict=True)], -1
    )


def _assign(problems: Sequence[np.ndarray]) -> list[Pairs]:
    """Solve assignment problems, hard ones in threads: SciPy releases the interpreter's lock."""
    threads = min(torch.get_num_threads(), len(problems))
    if threads == 1 or sum(costs.size for costs in problems) < _COSTS_WORTH_THREADS:
        return [linear_sum_assignment(costs) for costs in problems]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(linear_sum_assignment, problems))
