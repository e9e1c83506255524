"""Which objects the track queries of a training pair of frames follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddep.modeling.matcher import Pairs
from ddep.modeling.tracking.similarity import mask_overlaps


class TrackPlan(NamedTuple):
    """The track queries of the second frame of a pair.

    They are known before anything is predicted, so that the normalisers of losses are too.

    Attributes:
        followed: the objects of the first frame whose queries become track queries, by their
            positions in the first frame.
        targets: of each of these, the same object's position in the second frame; -1 where it left.
        false: objects in ``followed`` next to which a false track query is added.
    """

    followed: list[int]
    targets: list[int]
    false: list[int]

    @property
    def all_targets(self) -> list[int]:
        """The position in the second frame of each track query's object, false ones last; -1 is
        no object."""
        return [*self.targets, *[-1] * len(self.false)]


def plan_track_queries(
    first: Sequence[int],
    second: Sequence[int],
    *,
    num_queries: int,
    false_negatives: float,
    false_positives: float,
    generator: torch.Generator,
) -> TrackPlan:
    """Draw track queries, some of them dropped and some of them false.

    TrackFormer (Meinhardt et al., 2022, arXiv 2101.02702, section 3.3). Its repository draws one
    number of dropped queries for the whole batch, uniformly; here each query is dropped by itself,
    as in the paper.

    Args:
        first: ids of the first frame's objects, all of which have a query.
        second: ids of the second frame's objects.
        num_queries: queries of the first frame; those without an object can become false ones.
        false_negatives: probability of dropping a track query, whose object is then to be found
            again.
        false_positives: probability of adding a false one to each that is kept.
        generator: of the sample, so that what is drawn does not depend on the other samples.
    """
    dropped, spawned = torch.rand(2, len(first), generator=generator)
    followed = (dropped >= false_negatives).nonzero()[:, 0].tolist()
    places = {track_id: place for place, track_id in enumerate(second)}
    false = [place for place in followed if spawned[place] < false_positives]
    return TrackPlan(
        followed,
        targets=[places.get(first[place], -1) for place in followed],
        false=false[: num_queries - len(first)],
    )


def track_query_rows(plan: TrackPlan, pairs: Pairs, masks: Tensor) -> list[int]:
    """Choose the queries of the first frame that become track queries.

    A false one is a query without an object. Of these, that with the mask most like the mask of the
    followed object next to which it is added: the paper takes one that is likely to be occluded by
    it. (The repository draws one, with a probability that grows with the distance.)

    Args:
        plan: the objects to follow.
        pairs: the first frame's queries and the objects that they are matched with.
        masks: (Q, P) bool, the queries' masks.

    Returns:
        A query for each of ``plan.all_targets``.
    """
    query_of = dict(zip(pairs[1].tolist(), pairs[0].tolist(), strict=True))
    rows = [query_of[place] for place in plan.followed]
    if plan.false:
        overlaps = mask_overlaps(
            masks[[query_of[place] for place in plan.false]].cpu(), masks.cpu()
        )
        overlaps[:, pairs[0]] = -1
        for of_query in overlaps:
            rows.append(int(of_query.argmax()))
            overlaps[:, rows[-1]] = -1
    return rows
