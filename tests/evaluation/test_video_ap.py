"""Average precision of tracks against loops over decoded masks, and against what one can count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pycocotools.mask as mask_util
import pytest

from ddep.evaluation.mask_overlaps import common_pixels, video_ious
from ddep.evaluation.video_ap import METRICS, video_average_precision
from ddep.evaluation.video_tracks import Rle, VideoTrack, predicted_tracks

CLASSES = ("disc", "star", "never seen")
THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"": (0, 1e10), "s": (0, 128**2), "m": (128**2, 256**2), "l": (256**2, 1e10)}


def encode(mask: np.ndarray | None) -> Rle | None:
    if mask is None:
        return None
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def decode(track: VideoTrack, like: np.ndarray) -> np.ndarray:
    """(T, H, W) bool."""
    masks = [mask_util.decode(mask) if mask else np.zeros_like(like) for mask in track.masks]
    return np.array(masks, dtype=bool)


def track(category: int, masks: Sequence[np.ndarray | None], **values: float) -> VideoTrack:
    seen = [mask.sum() for mask in masks if mask is not None and mask.any()]
    area = sum(seen) / len(seen) if seen else 0
    return VideoTrack(category, [encode(mask) for mask in masks], area, **values)


def box(top: int, left: int, height: int, width: int, size: int = 40) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def random_videos(
    seed: int, size: int, length: int, shift: int
) -> tuple[dict[int, list[VideoTrack]], dict[int, list[VideoTrack]]]:
    """Rectangles that are found with errors of place, class, identity and presence.

    Scores have one digit, so that many are equal; the last video has no predictions.
    """
    rng = np.random.default_rng(seed)
    truth: dict[int, list[VideoTrack]] = {}
    predictions: dict[int, list[VideoTrack]] = {}
    for video in (7, 2, 5, 4):
        masks = []
        truth[video] = []
        for _ in range(rng.integers(2, 6)):
            top, left = rng.integers(0, size // 2, 2)
            height, width = rng.integers(size // 10, size, 2)
            frames = [box(top + t, left + t, height, width, size) for t in range(length)]
            masks.append([frame if rng.random() < 0.8 else None for frame in frames])
            crowd = bool(rng.random() < 0.3)
            truth[video].append(track(int(rng.integers(2)), masks[-1], iscrowd=crowd))
        if video == 4:
            break
        predictions[video] = []
        for _ in range(14):
            i, j = rng.integers(len(masks), size=2)
            frames = masks[i] if rng.random() < 0.7 else [*masks[i][:1], *masks[j][1:]]
            by = tuple(rng.integers(-shift, shift + 1, 2))
            frames = [None if frame is None else np.roll(frame, by, (0, 1)) for frame in frames]
            category = truth[video][i].category if rng.random() < 0.8 else int(rng.integers(3))
            score = round(float(rng.random()), 1)
            predictions[video].append(track(category, frames, score=score))
    return truth, predictions


def plain_metrics(
    truth: Mapping[int, Sequence[VideoTrack]], found: Mapping[int, Sequence[VideoTrack]], size: int
) -> dict[str, float]:
    """The definition, as loops over decoded masks, classes and thresholds."""
    like = np.zeros((size, size), dtype=bool)
    masks = {id(t): decode(t, like) for part in (truth, found) for v in part.values() for t in v}

    def iou(a: VideoTrack, b: VideoTrack) -> float:
        a, b = masks[id(a)], masks[id(b)]
        return (a & b).sum() / max((a | b).sum(), 1)

    def curve(category: int, area: str, threshold: float, limit: int) -> tuple[float, float] | None:
        """Mean precision at 101 recalls, and the last recall; None with nothing to find."""
        low, high = AREAS[area]
        outcomes: list[tuple[float, bool]] = []
        objects = 0
        for video in sorted(truth):
            real = [t for t in truth[video] if t.category == category]
            ignored = {id(t) for t in real if t.iscrowd or not low <= t.area <= high}
            objects += len(real) - len(ignored)
            taken: set[int] = set()
            best = [t for t in found.get(video, ()) if t.category == category]
            for guess in sorted(best, key=lambda t: -t.score)[:limit]:
                choice = None
                for wanted in (False, True):  # those that count come first
                    free = [
                        t
                        for t in real
                        if (id(t) in ignored) == wanted and (id(t) not in taken or t.iscrowd)
                    ]
                    fits = [t for t in free if iou(guess, t) >= min(threshold, 1 - 1e-10)]
                    if fits:
                        best_iou = max(iou(guess, t) for t in fits)
                        choice = [t for t in fits if iou(guess, t) == best_iou][-1]
                        break
                if choice is not None:
                    taken.add(id(choice))
                    if id(choice) not in ignored:
                        outcomes.append((guess.score, True))
                elif low <= guess.area <= high:
                    outcomes.append((guess.score, False))
        if not objects:
            return None
        outcomes.sort(key=lambda outcome: -outcome[0])
        hits, points = 0, []
        for n, (_, hit) in enumerate(outcomes, 1):
            hits += hit
            points.append((hits / objects, hits / n))
        precisions = [
            max([p for r, p in points if r >= recall], default=0)
            for recall in np.linspace(0, 1, 101)
        ]
        return float(np.mean(precisions)), (points[-1][0] if points else 0)

    def mean(
        which: int, area: str, thresholds: Sequence[float], limit: int, categories: Sequence[int]
    ) -> float:
        curves = [curve(c, area, t, limit) for c in categories for t in thresholds]
        values = [values[which] for values in curves if values is not None]
        return 100 * float(np.mean(values)) if values else math.nan

    every = range(len(CLASSES))
    return {
        "AP": mean(0, "", THRESHOLDS, 100, every),
        "AP50": mean(0, "", THRESHOLDS[:1], 100, every),
        "AP75": mean(0, "", THRESHOLDS[5:6], 100, every),
        **{f"AP{area}": mean(0, area, THRESHOLDS, 100, every) for area in "sml"},
        "AR1": mean(1, "", THRESHOLDS, 1, every),
        "AR10": mean(1, "", THRESHOLDS, 10, every),
        **{f"AP-{name}": mean(0, "", THRESHOLDS, 100, [i]) for i, name in enumerate(CLASSES)},
    }


@pytest.mark.parametrize(
    ("seed", "size", "length", "shift"), [(0, 48, 3, 2), (1, 48, 4, 3), (2, 400, 2, 12)]
)
def test_random_videos_as_by_loops(seed: int, size: int, length: int, shift: int) -> None:
    truth, predictions = random_videos(seed, size, length, shift)
    results = video_average_precision(truth, predictions, CLASSES)
    expected = plain_metrics(truth, predictions, size)
    assert results == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert 5 < results["AP"] < 95
    assert math.isnan(results["AP-never seen"])
    assert math.isnan(results["APl"]) == (size == 48)


def test_one_object_by_hand() -> None:
    """In common are 50, 60 and 0 pixels; in either 150, 140 and 20."""
    real = track(0, [box(0, 0, 10, 10), box(0, 0, 10, 10), None])
    guess = track(0, [box(0, 5, 10, 10), box(0, 4, 10, 10), box(30, 30, 4, 5)], score=0.5)
    (ious,) = video_ious([guess.masks], [real.masks])
    assert ious.tolist() == [pytest.approx(110 / 310)]
    assert (real.area, guess.area) == (100, 220 / 3)


def test_swapped_identities_halve_the_overlap() -> None:
    """Each of two tracks of four frames keeps the other object from the third frame on: IoU 1/3."""
    left, right = box(0, 0, 10, 10), box(0, 20, 10, 10)
    truth = {1: [track(0, [left] * 4), track(0, [right] * 4)]}
    swapped = [track(0, [left, left, right, right], score=0.9)]
    swapped.append(track(0, [right, right, left, left], score=0.8))
    assert video_average_precision(truth, {1: swapped}, CLASSES)["AP50"] == 0
    right_ids = [track(0, [left] * 4, score=0.9), track(0, [right] * 4, score=0.8)]
    assert video_average_precision(truth, {1: right_ids}, CLASSES)["AP"] == pytest.approx(100)
    three_of_four = [track(0, [left, left, left, right], score=0.9)]  # IoU 3 / 5
    results = video_average_precision(truth, {1: three_of_four}, CLASSES)
    assert results["AP50"] == pytest.approx(100 * 51 / 101)
    assert (results["AP75"], results["AR1"]) == (0, pytest.approx(100 * 0.5 * 3 / 10))


def test_crowds_absorb_any_number_of_tracks() -> None:
    real, crowd = box(0, 0, 10, 10), box(20, 0, 10, 30)
    truth = {3: [track(0, [real]), track(0, [crowd], iscrowd=True)]}
    guesses = [track(0, [crowd], score=0.9), track(0, [crowd], score=0.8)]
    found = [*guesses, track(0, [real], score=0.7)]
    assert video_average_precision(truth, {3: found}, CLASSES)["AP"] == pytest.approx(100)
    # Unlike COCO's, the IoU is not over the prediction's area: a part of a crowd is a mistake.
    part = track(0, [box(20, 0, 10, 10)], score=0.9)
    results = video_average_precision(truth, {3: [part, found[-1]]}, CLASSES)
    assert results["AP"] == pytest.approx(50)


def test_videos_without_predictions_or_objects() -> None:
    real = track(0, [box(0, 0, 10, 10)])
    nothing = video_average_precision({1: [real], 2: []}, {}, CLASSES)
    assert [nothing[name] for name in ("AP", "AR1", "AR10", "AP-disc")] == [0, 0, 0, 0]
    assert math.isnan(nothing["AP-star"])
    guess = track(0, [box(0, 0, 10, 10)], score=0.5)
    # A video that is missing is one whose objects are missed; objects where there are none count.
    half = video_average_precision({1: [real], 2: [real]}, {2: [guess]}, CLASSES)
    assert half["AP"] == pytest.approx(100 * 51 / 101)
    best = track(0, [box(0, 0, 10, 10)], score=0.9)
    false = video_average_precision({1: [real], 2: []}, {1: [guess], 2: [best]}, CLASSES)
    assert false["AP"] == pytest.approx(50)
    empty = video_average_precision({1: [], 2: []}, {1: [guess]}, CLASSES)
    assert all(math.isnan(empty[name]) for name in METRICS)


def test_areas_are_means_over_the_frames_where_an_object_is_seen() -> None:
    record = {"file_name": "0", "height": 40, "width": 40, "length": 4}
    masks = [box(0, 0, 10, 10), None, box(0, 0, 0, 0), box(0, 0, 10, 20)]
    output = {"pred_scores": [1], "pred_labels": [0], "pred_masks": [[encode(m) for m in masks]]}
    assert predicted_tracks("a", record, output, 1)[0].area == 150
    output["pred_masks"] = [[None] * 4]
    assert predicted_tracks("a", record, output, 1)[0].area == 0


def test_common_pixels_of_absent_masks() -> None:
    masks = [encode(box(0, 0, 3, 4)), None, encode(box(0, 0, 0, 0))]
    assert common_pixels(masks, [None, encode(box(1, 1, 9, 9))]).tolist() == [
        [0, 6],
        [0, 0],
        [0, 0],
    ]
    assert common_pixels([], masks).shape == (0, 3)
    assert video_ious([], [masks]).shape == (0, 1)
    assert video_ious([[None]], [[None]]).tolist() == [[0]]
