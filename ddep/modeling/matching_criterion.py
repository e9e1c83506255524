"""What the criteria of masks and of boxes share: matching, the classification loss, names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddep.modeling.matcher import Matcher, Pairs


class MatchedPairs(NamedTuple):
    """Matched predictions and targets of L layers, N pairs each; every field is (L, N) int64."""

    images: Tensor  # index into the batch
    queries: Tensor  # index into the image's queries
    targets: Tensor  # index into the concatenated targets of all images


class MatchingCriterion(nn.Module):
    """Losses of predictions that are matched to targets, with deep supervision.

    The classification loss is a cross entropy in which the no-object class, the target of unmatched
    queries, weighs less (DETR, arXiv 2005.12872, section 3.1).

    Attributes:
        targets_name: what :meth:`normalisers` calls the number of targets.
    """

    targets_name: ClassVar[str]

    def __init__(
        self,
        num_classes: int,
        *,
        matcher: Matcher,
        weights: Mapping[str, float],
        no_object_weight: float,
        num_aux_outputs: int,
    ) -> None:
        """
        Args:
            num_classes: K, without the no-object class.
            matcher: assigns queries to targets.
            weights: by the name of each loss of a layer, what the caller multiplies it by.
            no_object_weight: weight of the no-object class in the cross entropy.
            num_aux_outputs: how many earlier layers are also supervised.
        """
        super().__init__()
        self.num_classes = num_classes
        self.matcher = matcher
        self.no_object_weight = no_object_weight
        self.num_aux_outputs = num_aux_outputs
        # The weight of every loss that forward returns, by its name.
        self.weight_dict = {
            name + suffix: weight
            for suffix in _suffixes(num_aux_outputs)
            for name, weight in weights.items()
        }
        empty_weight = torch.ones(num_classes + 1)
        empty_weight[-1] = no_object_weight
        self.register_buffer("empty_weight", empty_weight)

    def normalisers(self, num_targets: Sequence[int], num_queries: int) -> dict[str, float]:
        """What the losses of some images are averaged over.

        This is known before matching: an image with T targets has min(T, Q) matched queries in
        every layer.

        Args:
            num_targets: T of each image.
            num_queries: Q of each image.

        Returns:
            The number of targets by :attr:`targets_name`, for the losses of masks or boxes;
            ``class_weights``, the sum of the queries' class weights, for the cross entropy.
        """
        matched = sum(min(count, num_queries) for count in num_targets)
        unmatched = num_queries * len(num_targets) - matched
        class_weights = matched + self.no_object_weight * unmatched
        return {self.targets_name: sum(num_targets), "class_weights": class_weights}

    def _match(self, costs: Tensor, labels: Sequence[Tensor]) -> MatchedPairs:
        num_targets = [len(of_image) for of_image in labels]
        return concatenate_pairs(self.matcher(costs, num_targets), num_targets, costs.device)

    def _classification_losses(
        self, layers: Sequence[dict[str, Tensor]], labels: Tensor, pairs: MatchedPairs
    ) -> Tensor:
        """(L,): cross entropy weighted by class, summed over all queries."""
        logits, classes = self._logits_and_classes(layers, labels, pairs)
        losses = F.cross_entropy(
            logits.flatten(0, -2), classes.flatten(), self.empty_weight, reduction="none"
        )
        return losses.view(len(layers), -1).sum(1)

    def _logits_and_classes(
        self, layers: Sequence[dict[str, Tensor]], labels: Tensor, pairs: MatchedPairs
    ) -> tuple[Tensor, Tensor]:
        """(L, B, Q, K+1) float32, and the classes that they should say, (L, B, Q) int64."""
        logits = torch.stack([outputs["pred_logits"] for outputs in layers]).float()
        layer_index = torch.arange(len(layers), device=logits.device)[:, None]
        classes = torch.full(
            logits.shape[:-1], self.num_classes, dtype=torch.int64, device=logits.device
        )
        classes[layer_index, pairs.images, pairs.queries] = labels[pairs.targets]
        return logits, classes

    @staticmethod
    def _by_name(losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(L,) losses by name -> scalars with the suffixes ``_0``, ``_1``, ..., none for the last
        layer."""
        num_layers = len(next(iter(losses.values())))
        return {
            name + suffix: losses_of_layers[layer]
            for layer, suffix in enumerate(_suffixes(num_layers - 1))
            for name, losses_of_layers in losses.items()
        }


def concatenate_pairs(
    matches: Sequence[Sequence[Pairs]], num_targets: Sequence[int], device: torch.device
) -> MatchedPairs:
    """Put the pairs of all images side by side.

    Args:
        matches: of each layer, of each image, as :class:`Matcher` returns them; as many in every
            layer.
        num_targets: T of each image.
        device: of the result.
    """
    first_targets = np.cumsum(num_targets) - num_targets
    pairs = np.stack(  # (3, L, N)
        [
            np.concatenate(
                [
                    [np.full_like(queries, image), queries, matched + first_targets[image]]
                    for image, (queries, matched) in enumerate(of_layer)
                ],
                axis=1,
            )
            for of_layer in matches
        ],
        axis=1,
    )
    return MatchedPairs(*torch.from_numpy(pairs).to(device, non_blocking=True))


def _suffixes(num_aux_outputs: int) -> list[str]:
    return [f"_{layer}" for layer in range(num_aux_outputs)] + [""]
