"""The detectron2 evaluator of panoptic quality."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from PIL import Image

from ddep.data.datasets.panoptic import encode_panoptic
from ddep.data.image_reader import read_panoptic
from ddep.data.json_file import read_json
from ddep.data.records import load_records
from ddep.errors import UserError
from ddep.evaluation.coco_format import panoptic_prediction
from ddep.evaluation.panoptic_quality import (
    CategoryStatistics,
    average_quality,
    check_labels,
    match_segments,
    quality_per_category,
    quality_table,
)

logger = logging.getLogger(__name__)


def check_panoptic_records(dataset_name: str) -> None:
    """Raise :class:`UserError` if the records of a panoptic data set cannot be loaded.

    A damaged annotation file is found here, not after training.
    """
    load_records("DATASETS.TEST", [dataset_name], filter_empty=False)


class PanopticQualityEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ against ground truth in COCO's panoptic format.

    Each image is compared as soon as it is predicted; only sums are kept.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        """
        Args:
            dataset_name: a registered data set whose metadata has ``panoptic_json``,
                ``panoptic_root`` and the maps from its category ids to contiguous ids.
            output_dir: where predictions go, in COCO's panoptic format (``predictions.json`` and
                PNGs in ``panoptic_predictions/``); None writes none.

        Raises:
            UserError: the ground truth is missing or has no annotations.
        """
        self._name = dataset_name
        self._metadata = MetadataCatalog.get(dataset_name)
        self._output_dir = output_dir
        self._json_file = self._metadata.panoptic_json
        if not os.path.isfile(self._json_file):
            raise UserError(
                f"{self._json_file}, the panoptic ground truth of {dataset_name}, does not exist; "
                "prepare the data set as datasets/README.md says"
            )
        truth = read_json(self._json_file)
        if not truth.get("annotations"):
            raise UserError(f"{self._json_file} has no annotations to evaluate {dataset_name} with")
        self._categories = truth["categories"]
        # JSON files differ in whether image ids are numbers or strings.
        self._annotations = {str(a["image_id"]): a for a in truth["annotations"]}
        self.reset()

    def reset(self) -> None:
        self._statistics = {c["id"]: CategoryStatistics() for c in self._categories}
        self._predictions: dict[str, dict[str, Any]] = {}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Compare predictions with the ground truth.

        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``panoptic_seg``: segment ids (H, W), 0 for void, and a list of
                ``id``, ``category_id`` (contiguous) and ``isthing`` of each segment. Where the list
                is None, ids are category * ``label_divisor`` + instance, and -1 is void.

        Raises:
            UserError: an image or category without ground truth, a label map that cannot be read,
                sizes that differ, segment ids that annotations and label map do not share.
        """
        for image, output in zip(inputs, outputs, strict=True):
            image_id = str(image["image_id"])
            if image_id not in self._annotations:
                raise UserError(f"{self._json_file} has no annotation of image {image_id}")
            annotation = self._annotations[image_id]
            png = os.path.join(self._metadata.panoptic_root, annotation["file_name"])
            truth = read_panoptic(png)
            prediction, segments = panoptic_prediction(
                *output["panoptic_seg"], self._metadata, known=self._statistics
            )
            predicted = f"prediction for image {image_id}"
            true_segments = annotation["segments_info"]
            check_labels(truth, true_segments, png, prediction, segments, predicted)
            matches = match_segments(truth, true_segments, prediction, segments)
            for category, statistics in matches.items():
                self._statistics[category].add(statistics)
            name = os.path.splitext(os.path.basename(annotation["file_name"]))[0] + ".png"
            self._predictions[image_id] = {
                "image_id": annotation["image_id"],
                "file_name": name,
                "segments_info": segments,
            }
            if self._output_dir:
                folder = os.path.join(self._output_dir, "panoptic_predictions")
                os.makedirs(folder, exist_ok=True)
                Image.fromarray(encode_panoptic(prediction)).save(os.path.join(folder, name))

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Average over all images and processes.

        Returns:
            ``{"panoptic_seg": {"PQ", "SQ", "RQ", "PQ_th", ..., "RQ_st", "PQ-<class>", ...}}`` in
            percent, of the classes that are seen; None on all but the main process.

        Raises:
            UserError: images of the ground truth without a prediction.
        """
        gathered = comm.gather((self._statistics, self._predictions))
        if not comm.is_main_process():
            return None
        totals = {c["id"]: CategoryStatistics() for c in self._categories}
        predictions: dict[str, dict[str, Any]] = {}
        for statistics, part in gathered:
            predictions.update(part)
            for category, sums in statistics.items():
                totals[category].add(sums)
        missing = [image_id for image_id in self._annotations if image_id not in predictions]
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(self._annotations)} images in {self._json_file} have "
                f"no prediction, the first is image {missing[0]}; {self._name} must hold them all"
            )
        if self._output_dir:
            with open(os.path.join(self._output_dir, "predictions.json"), "w") as file:
                json.dump({"annotations": list(predictions.values())}, file)
        table = quality_table(totals, self._categories)
        logger.info("Panoptic quality on %s:\n%s", self._name, table)
        averages = average_quality(totals, self._categories)
        return {"panoptic_seg": averages | quality_per_category(totals, self._categories)}
