"""Predictions in COCO's formats, with a data set's own category ids."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances

from ddep.errors import UserError


def panoptic_prediction(
    ids: torch.Tensor,
    segments: list[dict[str, Any]] | None,
    metadata: Metadata,
    known: Container[int] | None = None,
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """A model's panoptic result with the data set's category ids.

    Args:
        ids: (H, W) segment ids, 0 for void. Where ``segments`` is None, they are category *
            ``label_divisor`` + instance, and -1 is void.
        segments: ``id``, ``category_id`` (contiguous) and ``isthing`` of each segment.
        metadata: of the data set: ``{thing,stuff}_dataset_id_to_contiguous_id``.
        known: category ids to choose from, where several stand for one class; None takes the first.

    Returns:
        (H, W) ids with 0 for void; ``id`` and ``category_id`` of each segment.

    Raises:
        UserError: a class that the data set does not have.
    """
    prediction = ids.cpu().numpy()
    if segments is None:
        things = set(metadata.get("thing_dataset_id_to_contiguous_id", {}).values())
        divisor = metadata.label_divisor
        segments = [
            {"id": i + 1, "category_id": i // divisor, "isthing": i // divisor in things}
            for i in np.unique(prediction).tolist()
            if i != -1
        ]
        prediction = prediction + 1
    results = []
    for segment in segments:
        category = _category_id(segment["category_id"], segment["isthing"], metadata, known)
        results.append({"id": int(segment["id"]), "category_id": category})
    return prediction, results


def _category_id(
    category: int, isthing: bool, metadata: Metadata, known: Container[int] | None
) -> int:
    kind = "thing" if isthing else "stuff"
    dataset_ids = metadata.get(f"{kind}_dataset_id_to_contiguous_id", {})
    for dataset_id, contiguous_id in dataset_ids.items():
        if contiguous_id == category and (known is None or dataset_id in known):
            return dataset_id
    raise UserError(
        f"the model predicts {kind} class {int(category)}, which {metadata.name} does not have; "
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES must be the data set's"
    )


def instance_predictions(
    instances: Instances, image_id: int | str, metadata: Metadata
) -> list[dict[str, Any]]:
    """A model's objects in COCO's results format, with the data set's category ids.

    Args:
        instances: on the CPU; ``pred_boxes``, ``scores``, ``pred_classes`` (contiguous) and, if
            there are masks, ``pred_masks`` (N, H, W).
        image_id: of the image.
        metadata: of the data set: ``thing_dataset_id_to_contiguous_id``.

    Returns:
        For each object ``image_id``, ``category_id``, ``bbox`` (left, top, width, height),
        ``score`` and, of a mask, ``segmentation`` (run lengths).

    Raises:
        UserError: a class that is no thing of the data set.
    """
    dataset_ids = {
        contiguous: number
        for number, contiguous in metadata.get("thing_dataset_id_to_contiguous_id", {}).items()
    }
    results = instances_to_coco_json(instances, image_id)
    for result in results:
        if result["category_id"] not in dataset_ids:
            raise UserError(
                f"the model predicts thing class {result['category_id']}, which {metadata.name} "
                "does not have; the model's number of classes must be the data set's"
            )
        result["category_id"] = dataset_ids[result["category_id"]]
    return results
