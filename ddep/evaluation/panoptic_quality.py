"""Panoptic quality (Kirillov et al., 2019, arXiv 1801.00868, section 4), in NumPy.

The rules for void and crowd are those of panopticapi, which computes COCO's official numbers:

- Pixels that are void in the ground truth do not count in the union of a pair of segments.
- A predicted and a true segment match if they have the same category and an IoU above 0.5.
- A crowd segment of the ground truth is never matched and never missed (a false negative).
- An unmatched prediction is no false positive if more than half of it is void or crowd of its own
  category. Where an image has several crowds of a category, only the last one listed counts.

Areas are counted in the label maps, not read from the annotations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from ddep.errors import UserError

# The segment id of pixels without a label, in ground truth and predictions.
VOID = 0
# Ids are colours of a PNG: red + 256 green + 256^2 blue.
MAX_ID = 256**3
# What is averaged over: name, suffix of the metrics, values of a category's isthing.
KINDS = (("all", "", (0, 1)), ("things", "_th", (1,)), ("stuff", "_st", (0,)))


@dataclass
class CategoryStatistics:
    """What panoptic quality needs to know about one category."""

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
    truth_segments: Sequence[Mapping[str, Any]],
    prediction: np.ndarray,
    predicted_segments: Sequence[Mapping[str, Any]],
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
    crowds = {s["category_id"]: s["id"] for s in truth_segments if s.get("iscrowd")}
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
        if true_id == VOID or true_id == crowds.get(category):
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


def check_labels(
    truth: np.ndarray,
    truth_segments: Sequence[Mapping[str, Any]],
    truth_source: str,
    prediction: np.ndarray,
    predicted_segments: Sequence[Mapping[str, Any]],
    predicted_source: str,
) -> None:
    """Check what goes into :func:`match_segments`.

    A true segment without pixels is allowed, and counts as missed, as in panopticapi: published
    labels list stuff that things cover completely.

    Args:
        truth, truth_segments, prediction, predicted_segments: as there.
        truth_source, predicted_source: where they come from, for messages.

    Raises:
        UserError: sizes that differ, pixels of a segment that is not listed, a predicted segment
            without pixels, or a true segment with the id of void.
    """
    if any(segment["id"] == VOID for segment in truth_segments):
        raise UserError(f"{truth_source} lists segment {VOID}, the id of pixels without a label")
    _check_listed(truth, truth_segments, truth_source)
    _check_listed(prediction, predicted_segments, predicted_source)
    invisible = {s["id"] for s in predicted_segments} - set(np.unique(prediction).tolist())
    if invisible:
        raise UserError(
            f"{predicted_source} has no pixels of segment {min(invisible)}, which its "
            "segments_info lists; they must belong together"
        )
    if truth.shape != prediction.shape:
        raise UserError(
            f"{predicted_source} is {_size(prediction)}; expected {_size(truth)}, as {truth_source}"
        )


def _check_listed(ids: np.ndarray, segments: Sequence[Mapping[str, Any]], source: str) -> None:
    unknown = set(np.unique(ids).tolist()) - {segment["id"] for segment in segments} - {VOID}
    if unknown:
        raise UserError(
            f"{source} has pixels of segment {min(unknown)}, which its segments_info does not "
            "list; they must belong together"
        )


def _size(ids: np.ndarray) -> str:
    height, width = ids.shape
    return f"{width}x{height}"


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
    for _, suffix, kinds in KINDS:
        qualities = [
            statistics[category["id"]].quality()
            for category in categories
            if int(category["isthing"]) in kinds and statistics[category["id"]].seen
        ]
        for name in ("PQ", "SQ", "RQ"):
            values = [quality[name] for quality in qualities]
            results[name + suffix] = float(np.mean(values)) if values else float("nan")
    return results


def quality_per_category(
    statistics: Mapping[int, CategoryStatistics], categories: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """``PQ-<name>`` in percent of each category that is seen.

    Args:
        statistics, categories: as of :func:`average_quality`.
    """
    return {
        f"PQ-{category.get('name', category['id'])}": statistics[category["id"]].quality()["PQ"]
        for category in categories
        if statistics[category["id"]].seen
    }


def quality_table(
    statistics: Mapping[int, CategoryStatistics], categories: Sequence[Mapping[str, Any]]
) -> str:
    """PQ, SQ and RQ in percent of all, things, stuff and each category that is seen, as a table.

    TP, FP and FN are matched, false and missed segments.

    Args:
        statistics, categories: as of :func:`average_quality`.
    """
    averages = average_quality(statistics, categories)
    rows = []
    for kind, suffix, _ in KINDS:
        rows.append([kind, *(averages[name + suffix] for name in ("PQ", "SQ", "RQ"))])
    for category in categories:
        found = statistics[category["id"]]
        if found.seen:
            counts = (found.true_positives, found.false_positives, found.false_negatives)
            name = category.get("name", category["id"])
            rows.append([name, *found.quality().values(), *counts])
    return tabulate(rows, ["", "PQ", "SQ", "RQ", "TP", "FP", "FN"], "pipe", floatfmt=".3f")


def _areas(ids: np.ndarray) -> dict[int, int]:
    values, counts = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _overlaps(truth: np.ndarray, prediction: np.ndarray) -> dict[tuple[int, int], int]:
    """Number of pixels of each pair (true id, predicted id) that occurs."""
    pairs = _areas(truth.astype(np.int64) * MAX_ID + prediction)
    return {divmod(pair, MAX_ID): count for pair, count in pairs.items()}
