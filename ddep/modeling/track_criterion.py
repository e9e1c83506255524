"""Matching and losses of a frame whose track queries know their objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ddep.modeling.criterion import SetCriterion
from ddep.modeling.matcher import Pairs
from ddep.modeling.matching_criterion import MatchedPairs, concatenate_pairs
from ddep.modeling.track_plan import TrackPlan


class TrackCriterion(SetCriterion):
    """The losses of :class:`SetCriterion` for learned queries that track queries follow.

    TrackFormer (Meinhardt et al., 2022, arXiv 2101.02702, section 3.3): a track query has its own
    object as the target in all layers, or no object. The objects that have no track query are
    matched with the learned queries alone. In the cross entropy a track query without an object
    counts as much as one with an object (``track_query_false_positive_eos_weight`` in TrackFormer's
    repository).

    Each target dict has one entry more, ``tracked`` (E_i,) int64 on the CPU: the target of each
    track query of the image, in their order, -1 for no object.
    """

    def track_normalisers(
        self, plans: Sequence[TrackPlan], num_targets: Sequence[int], num_queries: int
    ) -> dict[str, float]:
        """As :meth:`normalisers`.

        Args:
            plans: the track queries of each image.
            num_targets: T of each image.
            num_queries: learned queries of each image.
        """
        found = [sum(target >= 0 for target in plan.targets) for plan in plans]
        new = [count - known for count, known in zip(num_targets, found, strict=True)]
        counts = self.normalisers(new, num_queries)
        return {
            "masks": counts["masks"] + sum(found),
            "class_weights": counts["class_weights"] + sum(len(p.all_targets) for p in plans),
        }

    def _match_targets(self, costs: Tensor, targets: Sequence[dict[str, Tensor]]) -> MatchedPairs:
        num_targets = [len(target["labels"]) for target in targets]
        tracked = [target["tracked"].numpy() for target in targets]
        num_learned = costs.shape[1] - max(map(len, tracked))
        new = [
            np.setdiff1d(np.arange(count), of_image)
            for count, of_image in zip(num_targets, tracked, strict=True)
        ]
        first_targets = np.cumsum(num_targets) - num_targets
        columns = torch.from_numpy(np.concatenate([*map(np.add, new, first_targets)]))
        costs_of_new = costs[:, :num_learned, columns.to(costs.device)]
        matches = [
            [
                _join(pairs, objects, of_image, num_learned)
                for pairs, objects, of_image in zip(of_layer, new, tracked, strict=True)
            ]
            for of_layer in self.matcher(costs_of_new, [len(of_image) for of_image in new])
        ]
        return concatenate_pairs(matches, num_targets, costs.device)

    def _class_losses(
        self,
        layers: Sequence[dict[str, Tensor]],
        targets: Sequence[dict[str, Tensor]],
        pairs: MatchedPairs,
    ) -> Tensor:
        labels = torch.cat([target["labels"] for target in targets])
        logits, classes = self._logits_and_classes(layers, labels, pairs)
        counts = [len(target["tracked"]) for target in targets]
        num_learned = classes.shape[-1] - max(counts)
        weights = self.empty_weight[classes]
        for image, count in enumerate(counts):
            weights[:, image, num_learned : num_learned + count] = 1
            weights[:, image, num_learned + count :] = 0  # padding
        losses = F.cross_entropy(logits.flatten(0, -2), classes.flatten(), reduction="none")
        return (losses.view_as(classes) * weights).flatten(1).sum(1)


def _join(pairs: Pairs, new: np.ndarray, tracked: np.ndarray, num_learned: int) -> Pairs:
    """Add the track queries that have an object to the pairs of one image and layer.

    Args:
        pairs: learned queries and what they are matched with, by its place in ``new``.
        new: targets without a track query.
        tracked: the target of each track query, -1 for none.
        num_learned: learned queries, which come first.
    """
    queries, places = pairs
    following = np.flatnonzero(tracked >= 0)
    return (
        np.concatenate([queries, num_learned + following]),
        np.concatenate([new[places], tracked[following]]),
    )
