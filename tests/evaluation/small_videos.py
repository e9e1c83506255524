"""Videos of two rectangles, as records and as what a model predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ddep.data.record import Record

HEIGHT, WIDTH, LENGTH = 20, 30, 3
# The data set's ids, of which none is the contiguous one, and the classes.
DATASET_IDS = {4: 0, 2: 1}
CLASSES = ["left", "right"]


def encode(top: int, left: int, height: int, width: int) -> dict[str, Any]:
    """A rectangle in an image of HEIGHT x WIDTH."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[top : top + height, left : left + width] = 1
    rle = mask_util.encode(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def annotation(track: int, category: int, mask: dict[str, Any], iscrowd: int = 0) -> dict[str, Any]:
    return {
        "id": track,
        "category_id": category,
        "iscrowd": iscrowd,
        "bbox": mask_util.toBbox(mask).tolist(),
        "bbox_mode": BoxMode.XYWH_ABS,
        "segmentation": mask,
        "area": float(mask_util.area(mask)),
    }


def video(number: int) -> Record:
    """Track 5 (left) stays in all frames, track 8 (right) leaves after the second."""
    left, right = encode(0, 0, 10, 10), encode(5, 20, 10, 10)
    annotations = [[annotation(5, 0, left), annotation(8, 1, right)] for _ in range(LENGTH)]
    del annotations[-1][1]
    names = [f"video{number}/{frame}.png" for frame in range(LENGTH)]
    return {
        "file_name": names[0],
        "file_names": names,
        "height": HEIGHT,
        "width": WIDTH,
        "length": LENGTH,
        "video_id": number,
        "annotations": annotations,
    }


def right_output() -> dict[str, Any]:
    """What a model that makes no mistake gives for a video."""
    left, right = encode(0, 0, 10, 10), encode(5, 20, 10, 10)
    return {
        "image_size": (HEIGHT, WIDTH),
        "pred_scores": [0.9, 0.8],
        "pred_labels": [0, 1],
        "pred_masks": [[left] * LENGTH, [right, right, encode(0, 0, 0, 0)]],
    }


@contextmanager
def registered(name: str, load: Callable[[], Sequence[Record]]) -> Iterator[str]:
    """Inside, ``name`` is a data set of videos."""
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(
        thing_classes=CLASSES,
        thing_dataset_id_to_contiguous_id=DATASET_IDS,
        labelled_for=("video_segm", "tracking"),
    )
    try:
        yield name
    finally:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)
