"""The outputs of a model that makes no mistakes, from the labels of a record."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask

from ddep.data.image_reader import read_labels, read_panoptic
from ddep.data.record import Record

SEMANTIC, INSTANCE, PANOPTIC = TASKS = ("SEMANTIC", "INSTANCE", "PANOPTIC")
# The group and the metric that each task is judged by.
RESULTS = {
    SEMANTIC: ("sem_seg", "mIoU"),
    INSTANCE: ("segm", "AP"),
    PANOPTIC: ("panoptic_seg", "PQ"),
}


def true_output(
    record: Record, tasks: Collection[str], classes: int, ignore_label: int, things: Collection[int]
) -> dict[str, Any]:
    """The output for one image.

    Args:
        record: one image of a data set, with its labels.
        tasks: those of ``TASKS`` that the output is for.
        classes: number of classes.
        ignore_label: label of pixels that do not count.
        things: contiguous ids of the classes that are things.
    """
    output: dict[str, Any] = {}
    if SEMANTIC in tasks:
        labels = read_labels(record["sem_seg_file_name"])
        # Where there is no label, anything may be predicted.
        labels = np.where(labels == ignore_label, 0, labels)
        scores = np.arange(classes)[:, None, None] == labels
        output["sem_seg"] = torch.from_numpy(scores.astype(np.float32))
    if PANOPTIC in tasks:
        segments = torch.from_numpy(read_panoptic(record["pan_seg_file_name"]))
        infos = [
            {**segment, "isthing": segment["category_id"] in things}
            for segment in record["segments_info"]
        ]
        output["panoptic_seg"] = segments, infos
    if INSTANCE in tasks:
        output["instances"] = true_instances(record, things)
    return output


def true_instances(record: Record, things: Collection[int]) -> Instances:
    """The objects in an image, except crowds."""
    if "annotations" in record:
        objects = [a for a in record["annotations"] if not a["iscrowd"]]
        masks = [coco_mask.decode(a["segmentation"]).astype(bool) for a in objects]
    else:
        segments = read_panoptic(record["pan_seg_file_name"])
        objects = [
            segment
            for segment in record["segments_info"]
            if segment["category_id"] in things and not segment.get("iscrowd")
        ]
        masks = [segments == segment["id"] for segment in objects]
    size = masks[0].shape if masks else (record["height"], record["width"])
    return Instances(
        size,
        pred_masks=torch.from_numpy(np.reshape(masks, (len(masks), *size)).astype(bool)),
        pred_boxes=Boxes(torch.zeros(len(masks), 4)),
        pred_classes=torch.tensor([entry["category_id"] for entry in objects], dtype=torch.int64),
        scores=torch.ones(len(masks)),
    )
