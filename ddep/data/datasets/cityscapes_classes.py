"""Cityscapes' 19 classes, which data sets of street scenes share, to train and test across them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

from ddep.data.datasets.panoptic import IGNORE_LABEL, Category
from ddep.data.datasets.semantic import register_semantic

# The 19 classes that are evaluated; ids are Cityscapes' own.
CATEGORIES: list[Category] = [
    {
        "id": category["id"],
        "name": category["name"],
        "isthing": category["isthing"],
        "color": list(category["color"]),
    }
    for category in CITYSCAPES_CATEGORIES
]
THINGS = [category for category in CATEGORIES if category["isthing"]]
CLASSES = [category["name"] for category in CATEGORIES]
_NOT_IN_SYNTHIA = {"terrain", "truck", "train"}
# Published results for SYNTHIA are means over the classes that it has (mIoU), and over these
# without the three hardest (mIoU*).
_NOT_IN_13 = _NOT_IN_SYNTHIA | {"wall", "fence", "pole"}
CLASS_SUBSETS = {
    "mIoU16": [name for name in CLASSES if name not in _NOT_IN_SYNTHIA],
    "mIoU13": [name for name in CLASSES if name not in _NOT_IN_13],
}


def register_19_classes(name: str, image_root: Path, sem_seg_root: Path, **arguments: Any) -> None:
    """Register a semantic data set of Cityscapes' 19 classes.

    Its classes are those of detectron2's ``cityscapes_fine_sem_seg_*``, so that one model can train
    on both.

    Args:
        name: what configs call it.
        image_root, sem_seg_root, arguments: as for :func:`register_semantic`.
    """
    register_semantic(
        name,
        image_root,
        sem_seg_root,
        CLASSES,
        colors=[category["color"] for category in CATEGORIES],
        thing_classes=[category["name"] for category in THINGS],
        class_subsets=CLASS_SUBSETS,
        **arguments,
    )


def label_table(class_of_id: Mapping[int, str], highest: int) -> np.ndarray:
    """Table from a data set's own numbers to labels, 0..18 or 255 for void.

    Args:
        class_of_id: from numbers to names in ``CLASSES``; other numbers are void.
        highest: the highest number.

    Returns:
        (highest + 1,) uint8.
    """
    table = np.full(highest + 1, IGNORE_LABEL, dtype=np.uint8)
    for number, name in class_of_id.items():
        table[number] = CLASSES.index(name)
    return table
