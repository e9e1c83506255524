"""The detectron2 evaluator of Cityscapes' mask AP, without the owners' package."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from tabulate import tabulate

from ddep.data.datasets.cityscapes import THINGS, VOID, instance_ids_file
from ddep.data.image_reader import read_labels
from ddep.errors import UserError
from ddep.evaluation.cityscapes_ap import ClassMatches, match_instances

logger = logging.getLogger(__name__)


def is_cityscapes(dataset_name: str) -> bool:
    """Whether a data set's instances are Cityscapes' label images."""
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type") or ""
    return evaluator_type.startswith("cityscapes_")


class CityscapesAPEvaluator(DatasetEvaluator):
    """Mask AP as Cityscapes defines it, against the owners' label images.

    Each image is compared as soon as it is predicted; only scores and counts are kept.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None) -> None:
        """
        Args:
            dataset_name: a registered data set whose metadata has ``gt_dir`` and
                ``thing_dataset_id_to_contiguous_id``.
            output_dir: not used; no files are written.
        """
        metadata = MetadataCatalog.get(dataset_name)
        self._name = dataset_name
        self._gt_dir = metadata.gt_dir
        things = metadata.thing_dataset_id_to_contiguous_id
        self._class_ids = {contiguous: class_id for class_id, contiguous in things.items()}
        self.reset()

    def reset(self) -> None:
        self._matches = {category["id"]: ClassMatches() for category in THINGS}

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Compare predictions with the ground truth.

        Args:
            inputs: dicts with ``file_name``, Cityscapes' own.
            outputs: dicts with ``instances``: ``scores``, ``pred_classes`` (contiguous) and
                ``pred_masks`` (N, H, W).

        Raises:
            UserError: a label image that cannot be read, sizes that differ, a predicted class that
                is no thing of the data set.
        """
        for image, output in zip(inputs, outputs, strict=True):
            path = instance_ids_file(self._gt_dir, image["file_name"])
            truth = read_labels(path)
            instances: Instances = output["instances"]
            if instances.image_size != truth.shape:
                raise UserError(
                    f"{path} is {truth.shape[1]}x{truth.shape[0]}; expected "
                    f"{instances.image_size[1]}x{instances.image_size[0]}, as the image"
                )
            predictions = zip(
                map(self._class_id, instances.pred_classes.tolist()),
                instances.scores.tolist(),
                instances.pred_masks.cpu().numpy().astype(bool),
                strict=True,
            )
            found = match_instances(truth, predictions, self._matches.keys(), VOID)
            for class_id, matches in found.items():
                self._matches[class_id].add(matches)

    def _class_id(self, contiguous: int) -> int:
        if contiguous not in self._class_ids:
            raise UserError(
                f"the model predicts thing class {contiguous}, which {self._name} does not have; "
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES must be the data set's"
            )
        return self._class_ids[contiguous]

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Average over the classes that the ground truth has, for all images and processes.

        Returns:
            ``{"segm": {"AP", "AP50", "AP-person", ..., "AP-bicycle"}}`` in percent, NaN where there
            is nothing to find; None on all but the main process.
        """
        gathered = comm.gather(self._matches)
        if not comm.is_main_process():
            return None
        totals = {category["id"]: ClassMatches() for category in THINGS}
        for part in gathered:
            for class_id, matches in part.items():
                totals[class_id].add(matches)
        precisions = {c["name"]: 100 * totals[c["id"]].average_precisions() for c in THINGS}
        seen = [values for values in precisions.values() if not np.isnan(values).any()]
        results = {"AP": float("nan"), "AP50": float("nan")}
        if seen:
            results = {"AP": float(np.mean(seen)), "AP50": float(np.mean(seen, axis=0)[0])}
        results |= {f"AP-{name}": float(values.mean()) for name, values in precisions.items()}
        rows = [[name, values.mean(), values[0]] for name, values in precisions.items()]
        rows.append(["all", results["AP"], results["AP50"]])
        table = tabulate(rows, ["", "AP", "AP50"], "pipe", floatfmt=".3f")
        logger.info("Cityscapes' mask AP on %s:\n%s", self._name, table)
        return {"segm": results}
