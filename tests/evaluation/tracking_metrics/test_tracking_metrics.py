"""Tracking metrics against their definitions, on random videos and on ones counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ddep.evaluation.tracking_metrics import (
    Frame,
    TrackedSequence,
    add_sums,
    class_average,
    metrics,
    sequence_sums,
)
from tests.evaluation.tracking_metrics.plain_metrics import (
    plain_clear,
    plain_hota,
    plain_identity,
)


def frame(true: list[int], found: list[int], similarity: list | np.ndarray | None = None) -> Frame:
    """Without ``similarity``, the first objects are each other, the second ones are, ..."""
    if similarity is None:
        similarity = np.eye(len(true), len(found))
    shape = len(true), len(found)
    return Frame(np.array(true, int), np.array(found, int), np.reshape(similarity, shape))


def measure(*frames: Frame) -> dict[str, float]:
    return metrics(sequence_sums(TrackedSequence.of(frames)))


def random_frames(seed: int) -> list[Frame]:
    """Four true tracks and four predicted ones, which come and go and change their object."""
    rng = np.random.default_rng(seed)
    owner = rng.permutation(4)
    frames = []
    for _ in range(12):
        true = rng.permutation(4)[: rng.integers(0, 5)]
        found = rng.permutation(4)[: rng.integers(0, 5)]
        if rng.random() < 0.2:
            owner = rng.permutation(4)
        similarity = rng.uniform(0, 0.55, (len(true), len(found)))
        right = true[:, None] == owner[found][None]
        similarity[right] = rng.uniform(0.3, 1, right.sum())
        frames.append(Frame(7 * true + 3, 5 * found - 2, similarity))
    return frames


@pytest.mark.parametrize("seed", range(4))
def test_random_videos_as_by_definition(seed: int) -> None:
    frames = random_frames(seed)
    results = measure(*frames)
    expected = plain_hota(frames) | plain_clear(frames) | plain_identity(frames)
    assert results == pytest.approx(expected, abs=1e-9)
    assert results["IDSW"] and results["Frag"] and 5 < results["HOTA"] < 80


def test_without_mistakes() -> None:
    results = measure(*[frame([1, 2], [30, 20])] * 5)
    ratios = [
        name for name in results if name not in ("IDSW", "Frag", "FP", "FN", "MT", "PT", "ML")
    ]
    assert [results[name] for name in ratios] == pytest.approx([100] * len(ratios))
    assert [results[name] for name in ("IDSW", "Frag", "FP", "FN", "MT", "ML")] == [
        0,
        0,
        0,
        0,
        2,
        0,
    ]


def test_a_track_that_breaks_in_two() -> None:
    """Ten frames of one object, five by each of two tracks: each match shares 5 of 10 frames."""
    results = measure(*[frame([1], [4])] * 5, *[frame([1], [9])] * 5)
    assert (results["DetA"], results["AssA"]) == pytest.approx((100, 50))
    assert (results["AssRe"], results["AssPr"]) == pytest.approx((50, 100))
    assert results["HOTA"] == pytest.approx(100 * math.sqrt(0.5))
    assert (results["MOTA"], results["MODA"], results["IDSW"]) == (90, 100, 1)
    assert (results["IDF1"], results["Frag"], results["MT"]) == (50, 0, 1)


def test_swapped_identities() -> None:
    """Each pair shares 5 of 15 frames; both objects change their track once."""
    results = measure(*[frame([1, 2], [1, 2])] * 5, *[frame([1, 2], [2, 1])] * 5)
    assert results["AssA"] == pytest.approx(100 / 3)
    assert (results["IDSW"], results["MOTA"], results["IDF1"]) == (2, 90, 50)


def test_gaps() -> None:
    """An object that is lost for two frames of ten is fragmented, and the same track again."""
    seen, lost = frame([1, 2], [1, 2]), frame([1, 2], [1])
    results = measure(*[seen] * 4, *[lost] * 2, *[seen] * 4)
    assert (results["Frag"], results["IDSW"], results["FN"]) == (1, 0, 2)
    assert (results["MT"], results["PT"]) == (1, 1)  # 80 % are not more than 80 %
    # TrackEval skips frames without any prediction: they fragment nothing.
    empty = frame([1, 2], [])
    results = measure(*[seen] * 4, *[empty] * 2, *[seen] * 4)
    assert (results["Frag"], results["IDSW"], results["FN"]) == (0, 0, 4)


def test_a_track_is_continued_before_a_closer_one() -> None:
    close = frame([1], [5, 6], [[0.6, 0.9]])
    assert measure(frame([1], [5]), close)["IDSW"] == 0
    assert measure(frame([1], [6]), close)["IDSW"] == 0
    far = frame([1], [5, 6], [[0.4, 0.9]])
    assert measure(frame([1], [5]), far)["IDSW"] == 1


def test_similarities() -> None:
    """0.62 is at least 12 of the 19 thresholds; without a match the localisation counts as 1."""
    results = measure(frame([1], [1], [[0.62]]))
    assert results["HOTA"] == pytest.approx(100 * 12 / 19)
    assert results["LocA"] == pytest.approx(100 * (12 * 0.62 + 7) / 19)
    assert (results["MOTP"], results["sMOTA"]) == pytest.approx((62, 62))
    exact = measure(frame([1], [1], [[0.5]]))
    assert (exact["MOTA"], exact["IDF1"]) == (100, 100)
    assert exact["HOTA"] == pytest.approx(100 * 10 / 19)
    assert measure(frame([1], [1], [[0.49]]))["IDF1"] == 0


def test_nothing_true_or_predicted() -> None:
    missed = measure(*[frame([1], [])] * 4)
    assert [missed[name] for name in ("HOTA", "MOTA", "IDF1", "FN", "ML")] == [0, 0, 0, 4, 1]
    false = measure(*[frame([], [1])] * 4)
    assert [false[name] for name in ("HOTA", "MOTA", "IDF1", "FP", "ML")] == [0, -400, 0, 4, 0]
    assert measure()["HOTA"] == measure(frame([], []))["HOTA"] == 0


def test_videos_add_up() -> None:
    """Ids in two videos are of different objects; each object counts, not each video."""
    good, bad = [frame([1], [1])] * 9, [frame([1], [])]
    parts = [sequence_sums(TrackedSequence.of(frames)) for frames in (good, bad)]
    results = metrics(add_sums(*parts))
    assert (results["MOTA"], results["DetA"]) == pytest.approx((90, 90))
    assert (results["AssA"], results["MT"], results["ML"]) == (100, 1, 1)
    assert measure(*good, *bad)["AssA"] == pytest.approx(90)


def test_average_over_classes() -> None:
    found = sequence_sums(TrackedSequence.of([frame([1], [1])] * 3))
    missed = sequence_sums(TrackedSequence.of([frame([1], [])] * 2))
    nothing = sequence_sums(TrackedSequence.of([]))
    results = class_average([found, missed, nothing])
    assert (results["HOTA"], results["MOTA"], results["LocA"]) == pytest.approx((50, 50, 100))
    assert (results["FN"], results["MT"], results["ML"]) == (2, 1, 1)
    empty = class_average([nothing])
    assert math.isnan(empty["HOTA"]) and empty["FN"] == 0


def test_a_track_twice_in_a_frame() -> None:
    for twice in (frame([1], [4, 4]), frame([4, 4], [1])):
        with pytest.raises(
            ValueError, match=r"frame 1 has a (true|predicted) track twice: \[4, 4\]"
        ):
            TrackedSequence.of([frame([1], [1]), twice])
