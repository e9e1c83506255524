"""Track queries become tracks, by hand-made predictions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddep.modeling.tracking.query_tracker import QueryTracker

LEARNED = 3
SIDE = 6


def make_tracker(**changes: float) -> QueryTracker:
    arguments = {
        "num_queries": LEARNED,
        "detection_score": 0.4,
        "track_score": 0.3,
        "duplicate_overlap": 0.5,
        "patience": 1,
    }
    return QueryTracker(**{**arguments, **changes})


def probabilities(*scores: float) -> Tensor:
    """Two classes; the second one is the best."""
    return torch.tensor([[score / 10, score] for score in scores])


def rows_of_pixels(*rows: int | None) -> Tensor:
    """Mask logits (N, SIDE, SIDE), positive in one row each; None is empty."""
    logits = torch.full((len(rows), SIDE, SIDE), -1.0)
    for mask, row in zip(logits, rows, strict=True):
        if row is not None:
            mask[row] = 1.0
    return logits


def update(
    tracker: QueryTracker, scores: list[float], rows: list[int | None], first_query: float = 0.0
) -> dict[int, int]:
    """The query's row of each track that is seen; queries are numbered from ``first_query``."""
    numbers = first_query + torch.arange(len(scores), dtype=torch.float32)
    found = tracker.update(probabilities(*scores), rows_of_pixels(*rows), numbers[:, None])
    return {track.id: row for track, row in zip(found.tracks, found.rows, strict=True)}


def test_confident_queries_begin_tracks_which_their_outputs_continue() -> None:
    tracker = make_tracker()
    assert update(tracker, [0.5, 0.4, 0.9], [0, 1, 2]) == {1: 2, 2: 0}  # 0.4 is not enough
    assert [query.item() for query in tracker.queries] == [2, 0]
    # The track queries follow the learned ones; a track may be less sure than a detection.
    assert update(tracker, [0, 0.45, 0, 0.35, 0.31], [0, 1, 2, 4, 5], 10) == {1: 3, 2: 4, 3: 1}
    assert [query.item() for query in tracker.queries] == [13, 14, 11]


def test_probabilities_are_those_of_frames_in_which_a_track_was_found() -> None:
    tracker = make_tracker()
    update(tracker, [0.5, 0, 0], [0, 1, 2])
    update(tracker, [0, 0, 0, 0.1], [0, 1, 2, 0])
    found = tracker.update(
        probabilities(0, 0, 0, 0.9), rows_of_pixels(0, 1, 2, 0), torch.zeros(4, 1)
    )
    torch.testing.assert_close(found.tracks[0].class_probabilities, torch.tensor([0.07, 0.7]))


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_lost_tracks_are_found_again_for_a_while(patience: int) -> None:
    for gap in range(1, 5):
        tracker = make_tracker(patience=patience)
        update(tracker, [0.5, 0, 0], [0, 1, 2], 40)
        for _ in range(gap):
            number = len(tracker.queries)
            assert update(tracker, [0] * 3 + [0.2] * number, [None] * 3 + [0] * number) == {}
        known = len(tracker.queries)
        assert known == (gap <= patience)
        if known:
            # Its query is that of the frame in which it was found.
            assert tracker.queries[0].item() == 40
            assert update(tracker, [0, 0, 0, 0.5], [0, 1, 2, 0]) == {1: 3}


def test_numbers_are_not_used_again() -> None:
    tracker = make_tracker(patience=0)
    assert update(tracker, [0.5, 0, 0], [0, 1, 2]) == {1: 0}
    assert update(tracker, [0.5, 0, 0, 0.1], [1, 1, 2, 0]) == {2: 0}


def test_a_track_has_its_mask_to_itself() -> None:
    tracker = make_tracker()
    assert update(tracker, [0.5, 0.9, 0], [0, 0, 2]) == {1: 1}  # the more confident one
    # A learned query is no second track, even a more confident one.
    assert update(tracker, [0.9, 0, 0, 0.5], [3, 0, 2, 3]) == {1: 3}
    assert update(tracker, [0.9, 0, 0, 0.5], [4, 0, 2, 3]) == {1: 3, 2: 0}
    # Of two tracks the more confident one stays, and the other ends.
    assert update(tracker, [0, 0, 0, 0.5, 0.6], [None] * 3 + [3, 3]) == {2: 4}
    assert len(tracker.queries) == 1


def test_masks_may_overlap_a_little() -> None:
    tracker = make_tracker(duplicate_overlap=0.5)
    masks = rows_of_pixels(0, 0, None)
    masks[1, 1] = 1.0  # intersection over union 1 / 2
    found = tracker.update(probabilities(0.5, 0.6, 0.0), masks, torch.zeros(3, 1))
    assert found.rows == [1, 0]


def test_what_has_no_mask_is_not_seen() -> None:
    tracker = make_tracker()
    assert update(tracker, [0.9, 0.9, 0], [None, 1, 2]) == {1: 1}
    assert update(tracker, [0, 0, 0, 0.9], [0, 1, 2, None]) == {}
    assert len(tracker.queries) == 1  # lost, for one frame


def test_nothing() -> None:
    tracker = make_tracker()
    assert update(tracker, [0.1, 0.2, 0.3], [0, 1, 2]) == {}
    assert tracker.queries == []
