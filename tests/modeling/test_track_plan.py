"""Which objects track queries follow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddep.modeling.track_plan import TrackPlan, plan_track_queries, track_query_rows


def plan(
    first: list[int], second: list[int], seed: int = 0, num_queries: int = 10, **chances: float
) -> TrackPlan:
    return plan_track_queries(
        first,
        second,
        num_queries=num_queries,
        **{"false_negatives": 0.0, "false_positives": 0.0, **chances},
        generator=torch.Generator().manual_seed(seed),
    )


def test_targets_are_the_same_objects() -> None:
    """Whatever their order; 3 has left, and 5 is new."""
    found = plan([7, 3, 9], [9, 5, 7])
    assert found == TrackPlan(followed=[0, 1, 2], targets=[2, -1, 0], false=[])
    assert plan([], [1]) == TrackPlan([], [], [])
    assert plan([1], []) == TrackPlan([0], [-1], [])


def test_every_query_is_dropped_or_gets_a_false_one_by_itself() -> None:
    plans = [
        plan([4, 5], [5, 4], seed, false_negatives=0.4, false_positives=0.25)
        for seed in range(2000)
    ]
    for place in (0, 1):
        followed = [place in found.followed for found in plans]
        assert np.mean(followed) == pytest.approx(0.6, abs=0.05)
        false = [place in found.false for found in plans if place in found.followed]
        assert np.mean(false) == pytest.approx(0.25, abs=0.05)
    # Independent of each other.
    both = [found.followed == [0, 1] for found in plans]
    assert np.mean(both) == pytest.approx(0.36, abs=0.05)
    for found in plans:
        assert set(found.false) <= set(found.followed)
        assert found.targets == [1 - place for place in found.followed]
        assert found.all_targets == found.targets + [-1] * len(found.false)


def test_there_are_no_more_false_ones_than_queries_without_an_object() -> None:
    assert plan([1, 2, 3], [], num_queries=4, false_positives=1.0).false == [0]
    assert plan([1, 2, 3], [], num_queries=3, false_positives=1.0).false == []


def test_false_track_queries_look_like_the_object_beside_them() -> None:
    """Each of them is another query, none of which has an object."""
    masks = torch.zeros(6, 8, dtype=torch.bool)
    masks[0, :4] = True  # of object 1
    masks[1, 1:4] = True
    masks[2, :4] = True  # of object 0, which is not followed
    masks[3, 4:] = True  # of object 2
    masks[4, 2:7] = True
    pairs = np.array([0, 2, 3]), np.array([1, 0, 2])
    found = track_query_rows(TrackPlan([1, 2], [0, -1], false=[1, 2]), pairs, masks)
    assert found == [0, 3, 1, 4]
    # Next to the same object, the second best.
    found = track_query_rows(TrackPlan([1], [0], false=[1, 1]), pairs, masks)
    assert found == [0, 1, 4]
    assert track_query_rows(TrackPlan([2, 1], [0, 1], []), pairs, masks) == [3, 0]
