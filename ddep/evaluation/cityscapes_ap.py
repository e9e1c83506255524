"""Cityscapes' average precision of instance masks, in NumPy.

The rules are those of the owners' evaluation (cityscapesScripts, evalInstanceLevelSemanticLabeling;
Cordts et al., 2016, arXiv 1604.01685, section 4.2):

- A predicted and a true object match if their IoU is above a threshold: 0.5, 0.55, ..., 0.95.
- If several predictions match one object, the one with the highest score is right, the others are
  wrong.
- Groups of objects and objects below 100 pixels are neither found nor missed.
- A prediction without a match is not counted if a larger part of it than the threshold is void, in
  groups of its class or in small objects of its class. (Pixels of a small group count twice.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

THRESHOLDS = np.arange(0.5, 1.0, 0.05)
MIN_PIXELS = 100
# Object ids are class * this + number; the id of a group is the class.
DIVISOR = 1000


@dataclass
class ClassMatches:
    """What AP needs to know about one class; lists have an entry for each of ``THRESHOLDS``.

    Attributes:
        scores: of every counted prediction.
        correct: whether each matches an object.
        missed: number of objects without a match.
        objects: number of objects that count.
        predictions: number of predictions, those that do not count included.
    """

    scores: list[list[float]] = field(default_factory=lambda: [[] for _ in THRESHOLDS])
    correct: list[list[bool]] = field(default_factory=lambda: [[] for _ in THRESHOLDS])
    missed: list[int] = field(default_factory=lambda: [0 for _ in THRESHOLDS])
    objects: int = 0
    predictions: int = 0

    def add(self, other: ClassMatches) -> None:
        """Add what was found in other images, in place."""
        for index in range(len(THRESHOLDS)):
            self.scores[index] += other.scores[index]
            self.correct[index] += other.correct[index]
            self.missed[index] += other.missed[index]
        self.objects += other.objects
        self.predictions += other.predictions

    def average_precisions(self) -> np.ndarray:
        """AP at each threshold, (10,) in 0..1; NaN where there is nothing to find."""
        if not self.objects:
            return np.full(len(THRESHOLDS), np.nan)
        if not self.predictions:
            return np.zeros(len(THRESHOLDS))
        parts = zip(self.scores, self.correct, self.missed, strict=True)
        return np.array([average_precision(*part) for part in parts])


def average_precision(scores: list[float], correct: list[bool], missed: int) -> float:
    """Area under the curve of precision over recall.

    Args:
        scores: of the predictions.
        correct: whether each is right.
        missed: objects that no prediction matches.
    """
    ranked = np.array(scores)
    right = np.array(correct, dtype=bool)
    precision, recall = [], []
    for threshold in np.unique(ranked):
        kept = ranked >= threshold
        hits = np.count_nonzero(right & kept)
        precision.append(hits / np.count_nonzero(kept))
        recall.append(hits / (np.count_nonzero(right) + missed))
    # A point of recall 0 is added; each point covers half of the way to its neighbours.
    precision, recall = [*precision, 1.0], [*recall, 0.0]
    padded = np.array([recall[0], *recall, 0.0])
    return float(np.dot(precision, (padded[:-2] - padded[2:]) / 2))


@dataclass(frozen=True)
class _Prediction:
    """``overlaps``: pixels that it shares with each id of the ground truth."""

    score: float
    area: int
    overlaps: dict[int, int]


def match_instances(
    truth: np.ndarray,
    predictions: Iterable[tuple[int, float, np.ndarray]],
    things: Collection[int],
    void: Collection[int],
) -> dict[int, ClassMatches]:
    """Compare the objects of one image.

    Args:
        truth: (H, W) integers, Cityscapes' instance ids: class * 1000 + number for an object, the
            class for stuff and for groups of objects.
        predictions: class, score and mask (H, W) bool of each.
        things: the classes that are evaluated.
        void: the ids of void.

    Returns:
        What was found, for each of ``things``.
    """
    areas = _count(truth)
    found: dict[int, list[_Prediction]] = {category: [] for category in things}
    for category, score, mask in predictions:
        area = np.count_nonzero(mask)
        if area:
            found[category].append(_Prediction(score, area, _count(truth[mask])))
    return {
        category: _match_class(
            {i: area for i, area in areas.items() if category in (i, i // DIVISOR)},
            found[category],
            void,
        )
        for category in things
    }


def _match_class(
    areas: dict[int, int], predictions: list[_Prediction], void: Collection[int]
) -> ClassMatches:
    """Match the objects of one class, given by their areas, with its predictions."""
    counted = [i for i, area in areas.items() if i >= DIVISOR and area >= MIN_PIXELS]
    matches = ClassMatches(objects=len(counted), predictions=len(predictions))
    for index, threshold in enumerate(THRESHOLDS):
        scores_of_object: dict[int, list[float]] = {i: [] for i in areas}
        wrong = []
        for prediction in predictions:
            hits = [i for i in areas if _iou(prediction, i, areas[i]) > threshold]
            for i in hits:
                scores_of_object[i].append(prediction.score)
            if not hits and _ignored_part(prediction, areas, void) <= threshold:
                wrong.append(prediction.score)
        right = []
        for i in counted:
            if scores_of_object[i]:
                *others, best = sorted(scores_of_object[i])
                right.append(best)
                wrong += others
            else:
                matches.missed[index] += 1
        matches.scores[index] = right + wrong
        matches.correct[index] = [True] * len(right) + [False] * len(wrong)
    return matches


def _iou(prediction: _Prediction, object_id: int, area: int) -> float:
    overlap = prediction.overlaps.get(object_id, 0)
    return overlap / (area + prediction.area - overlap)


def _ignored_part(prediction: _Prediction, areas: dict[int, int], void: Collection[int]) -> float:
    pixels = sum(prediction.overlaps.get(i, 0) for i in void)
    for i, area in areas.items():
        overlap = prediction.overlaps.get(i, 0)
        pixels += overlap * ((i < DIVISOR) + (area < MIN_PIXELS))
    return pixels / prediction.area


def _count(ids: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
