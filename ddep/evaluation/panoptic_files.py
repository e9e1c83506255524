"""Panoptic quality of predictions in files, as panopticapi computes it, with all cores."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import index
from typing import Any

from tqdm import tqdm

from ddep.data.image_reader import read_panoptic
from ddep.data.json_file import read_json
from ddep.errors import UserError
from ddep.evaluation.panoptic_quality import (
    KINDS,
    MAX_ID,
    CategoryStatistics,
    average_quality,
    check_labels,
    match_segments,
)
from ddep.parallel import Crash, parallel_map

_METRICS = ("PQ", "SQ", "RQ")


@dataclass(frozen=True)
class PanopticFiles:
    """Panoptic labels in COCO's format.

    Attributes:
        json_file: lists the segments of every image.
        folder: of the PNG files.
    """

    json_file: str
    folder: str


@dataclass(frozen=True)
class PanopticResult:
    """What :func:`evaluate_panoptic_files` found.

    Attributes:
        statistics: sums over all images, for each category id.
        categories: of the ground truth, in COCO's form.
        images: how many were compared.
        ignored: how many predicted images have no ground truth.
    """

    statistics: dict[int, CategoryStatistics]
    categories: list[dict[str, Any]]
    images: int
    ignored: int

    def to_json(self) -> dict[str, Any]:
        """All numbers, in percent; null for what does not occur in ground truth and predictions.

        ``all``, ``things`` and ``stuff`` hold PQ, SQ, RQ and the number of categories that they are
        averages of; ``per_class`` holds for each category PQ, SQ, RQ, the sum of IoU (a fraction)
        and the numbers of segments that are matched (TP), false (FP) and missed (FN).
        """
        averages = average_quality(self.statistics, self.categories)
        results: dict[str, Any] = {"images": self.images}
        for kind, suffix, kinds in KINDS:
            seen = [
                c
                for c in self.categories
                if int(c["isthing"]) in kinds and self.statistics[c["id"]].seen
            ]
            results[kind] = {n: averages[n + suffix] if seen else None for n in _METRICS}
            results[kind]["categories"] = len(seen)
        results["per_class"] = [self._of_category(category) for category in self.categories]
        return results

    def _of_category(self, category: Mapping[str, Any]) -> dict[str, Any]:
        found = self.statistics[category["id"]]
        quality = found.quality() if found.seen else dict.fromkeys(_METRICS)
        return {
            "id": category["id"],
            "name": category.get("name", str(category["id"])),
            "isthing": int(category["isthing"]),
            **quality,
            "iou_sum": found.iou_sum,
            "TP": found.true_positives,
            "FP": found.false_positives,
            "FN": found.false_negatives,
        }


def evaluate_panoptic_files(
    truth: PanopticFiles, prediction: PanopticFiles, workers: int
) -> PanopticResult:
    """Compare predictions with the ground truth.

    Every image of the ground truth must have been predicted. Image ids may be numbers in one file
    and strings in the other.

    Args:
        truth: the JSON file has ``categories`` (``id``, ``isthing``) and ``annotations``
            (``image_id``, ``file_name`` and ``segments_info``: ``id``, ``category_id``,
            ``iscrowd``).
        prediction: ``annotations`` of the same form.
        workers: number of processes.

    Raises:
        UserError: files that are missing, damaged or do not fit each other; says which and how.
    """
    content = read_json(truth.json_file, ("categories", "annotations"))
    predicted = read_json(prediction.json_file, ("annotations",))
    categories = content["categories"]
    if not all(isinstance(c, dict) and {"id", "isthing"} <= c.keys() for c in categories):
        raise UserError(f"{truth.json_file} has categories without id or isthing; add them")
    known = {category["id"] for category in categories}
    truths = _by_image(truth, content["annotations"], known, truth.json_file)
    predictions = _by_image(prediction, predicted["annotations"], known, truth.json_file)
    if not truths:
        raise UserError(f"{truth.json_file} has no annotations to evaluate with")
    missing = [image_id for image_id in truths if image_id not in predictions]
    if missing:
        raise UserError(
            f"{prediction.json_file} has no prediction for {len(missing)} of the {len(truths)} "
            f"images in {truth.json_file}, the first is image {missing[0]}; predict all of them"
        )
    pairs = [(labels, predictions[image_id]) for image_id, labels in truths.items()]
    _check_files(truth.folder, (labels for labels, _ in pairs))
    _check_files(prediction.folder, (labels for _, labels in pairs))
    totals = {category: CategoryStatistics() for category in known}
    results = parallel_map(_compare, pairs, workers)
    for pair, found in zip(
        pairs, tqdm(results, total=len(pairs), unit="image", disable=None), strict=True
    ):
        if isinstance(found, Crash):
            raise UserError(
                f"the process that compared {pair[1].png} with {pair[0].png} died; check both "
                "files, and whether there is enough memory for --workers"
            )
        for category, statistics in found.items():
            totals[category].add(statistics)
    return PanopticResult(totals, categories, len(pairs), len(predictions) - len(pairs))


@dataclass(frozen=True)
class _Labels:
    """Of one image: the path of the PNG file and the segments that the JSON file lists."""

    png: str
    segments: list[dict[str, Any]]


def _by_image(
    files: PanopticFiles, annotations: Iterable[Any], categories: set[int], categories_file: str
) -> dict[str, _Labels]:
    """The labels of each image, after a look at everything that the JSON file alone shows."""
    labels: dict[str, _Labels] = {}
    for annotation in annotations:
        try:
            image_id = str(annotation["image_id"])
            png = os.path.join(files.folder, annotation["file_name"])
            segments = [_whole_numbers(segment) for segment in annotation["segments_info"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{files.json_file} has the annotation {str(annotation)[:60]} ..., which cannot be "
                f"used ({error!r}); expected image_id, file_name and segments_info, whose id and "
                "category_id are whole numbers"
            ) from error
        where = f"{files.json_file}: image {image_id} ({annotation['file_name']})"
        if image_id in labels:
            raise UserError(f"{where} is listed twice; keep one annotation of each image")
        ids = set()
        for segment in segments:
            number, category = segment["id"], segment["category_id"]
            if category not in categories:
                raise UserError(
                    f"{where} has segment {number} of category {category}, which "
                    f"{categories_file} does not have; use its category ids"
                )
            if number in ids:
                raise UserError(f"{where} lists segment {number} twice; ids must differ")
            if not 0 <= number < MAX_ID:
                raise UserError(f"{where} has segment {number}; expected ids below {MAX_ID}")
            ids.add(number)
        labels[image_id] = _Labels(png, segments)
    return labels


def _whole_numbers(segment: Mapping[str, Any]) -> dict[str, int]:
    """What counts of a segment. TypeError for fractions and strings."""
    return {
        "id": index(segment["id"]),
        "category_id": index(segment["category_id"]),
        "iscrowd": index(segment.get("iscrowd", 0)),
    }


def _check_files(folder: str, labels: Iterable[_Labels]) -> None:
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is not a folder; expected the PNG files of panoptic labels")
    missing = [item.png for item in labels if not os.path.isfile(item.png)]
    if missing:
        raise UserError(
            f"{missing[0]} does not exist, though the JSON file lists it ({len(missing)} such); "
            "check that the folder and the JSON file belong together"
        )


def _compare(pair: tuple[_Labels, _Labels]) -> dict[int, CategoryStatistics]:
    truth, prediction = pair
    true_ids, predicted_ids = read_panoptic(truth.png), read_panoptic(prediction.png)
    check_labels(
        true_ids,
        truth.segments,
        truth.png,
        predicted_ids,
        prediction.segments,
        prediction.png,
    )
    return match_segments(true_ids, truth.segments, predicted_ids, prediction.segments)
