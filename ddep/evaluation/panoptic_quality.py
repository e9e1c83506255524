"""Panoptic quality (Kirillov et al., 2019, arXiv 1801.00868, section 4), in NumPy.

The rules for void and crowd are those of panopticapi, which computes COCO's official numbers:

- Pixels that are void in the ground truth do not count in the union of a pair of segments.
- A predicted and a true segment match if they have the same category and an IoU above 0.5.
- A crowd segment of the ground truth is never matched and never missed (a false negative).
- An unmatched prediction is no false positive if more than half of it is void or crowd of its own
  category.

Areas are counted in the label maps, not read from the annotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# The segment id of pixels without a label, in ground truth and predictions.
VOID = 0
# Ids are colours of a PNG: red + 256 green + 256^2 blue.
MAX_ID = 256**3


@dataclass
class CategoryStatistics:
    """What panoptic quality needs of one category: matched pairs, their IoU, and the rest."""

    iou_sum: float = 0.0
    true_positives: int = 0
    false_positives: int = 0
    false_negatives: int = 0

    def add(self, other: CategoryStatistics) -> None:
        """Add the sums of other images, in place."""
        self.iou_sum += other.iou_sum
        self.true_positives += other.true_positives
        self.false_positives += other.false_positives
        self.false_negatives += other.false_negatives

    @property
    def seen(self) -> bool:
        """Whether the category occurs in the ground truth or the predictions."""
        return self.true_positives + self.false_positives + self.false_negatives > 0

    def quality(self) -> dict[str, float]:
        """PQ, SQ and RQ in percent (equation 1 and its two factors); the category must be seen."""
        segments = self.true_positives + (self.false_positives + self.false_negatives) / 2
        return {
            "PQ": 100 * self.iou_sum / segments,
            "SQ": 100 * self.iou_sum / self.true_positives if self.true_positives else 0.0,
            "RQ": 100 * self.true_positives / segments,
        }


def match_segments(
    truth: np.ndarray,
    truth_segments: Iterable[Mapping[str, Any]],
    prediction: np.ndarray,
    predicted_segments: Iterable[Mapping[str, Any]],
) -> dict[int, CategoryStatistics]:
    """Compare the segments of one image.

    Args:
        truth: (H, W) integer, segment ids below ``MAX_ID``; 0 is void.
        truth_segments: ``id``, ``category_id`` and optionally ``iscrowd`` of every segment.
        prediction: as ``truth``.
        predicted_segments: ``id`` and ``category_id`` of every segment.

    Returns:
        The statistics of every category that occurs.
    """
    true_category = {s["id"]: s["category_id"] for s in truth_segments if not s.get("iscrowd")}
    crowd_category = {s["id"]: s["category_id"] for s in truth_segments if s.get("iscrowd")}
    predicted_category = {s["id"]: s["category_id"] for s in predicted_segments}
    categories = {*true_category.values(), *predicted_category.values()}
    statistics = {category: CategoryStatistics() for category in categories}

    true_area, predicted_area = _areas(truth), _areas(prediction)
    overlaps = _overlaps(truth, prediction)
    unmatched_truth, unmatched_predictions = set(true_category), set(predicted_category)
    ignored_area = dict.fromkeys(predicted_category, 0)
    for (true_id, predicted_id), overlap in overlaps.items():
        category = predicted_category.get(predicted_id)
        if category is None:
            continue
        if true_id == VOID or crowd_category.get(true_id) == category:
            ignored_area[predicted_id] += overlap
        if true_category.get(true_id) != category:
            continue
        void_area = overlaps.get((VOID, predicted_id), 0)
        union = true_area[true_id] + predicted_area[predicted_id] - overlap - void_area
        if 2 * overlap > union:
            statistics[category].true_positives += 1
            statistics[category].iou_sum += overlap / union
            unmatched_truth.remove(true_id)
            unmatched_predictions.remove(predicted_id)

    for true_id in unmatched_truth:
        statistics[true_category[true_id]].false_negatives += 1
    for predicted_id in unmatched_predictions:
        if 2 * ignored_area[predicted_id] <= predicted_area[predicted_id]:
            statistics[predicted_category[predicted_id]].false_positives += 1
    return statistics


def average_quality(
    statistics: Mapping[int, CategoryStatistics], categories: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """PQ, SQ and RQ in percent, averaged over the categories that are seen.

    Args:
        statistics: sums over all images, for each category id.
        categories: ``id`` and ``isthing`` of each category, in COCO's form.

    Returns:
        PQ, SQ, RQ of all categories, with the suffix ``_th`` of things and ``_st`` of stuff. NaN
        where no category is seen.
    """
    results = {}
    for suffix, kinds in (("", (0, 1)), ("_th", (1,)), ("_st", (0,))):
        qualities = [
            statistics[category["id"]].quality()
            for category in categories
            if int(category["isthing"]) in kinds and statistics[category["id"]].seen
        ]
        for name in ("PQ", "SQ", "RQ"):
            values = [quality[name] for quality in qualities]
            results[name + suffix] = float(np.mean(values)) if values else float("nan")
    return results


def _areas(ids: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _overlaps(truth: np.ndarray, prediction: np.ndarray) -> dict[tuple[int, int], int]:
    """Number of pixels of each pair (true id, predicted id) that occurs."""
    pairs = _areas(truth.astype(np.int64) * MAX_ID + prediction)
    return {divmod(pair, MAX_ID): count for pair, count in pairs.items()}
