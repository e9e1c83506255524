"""What the sets of Cityscapes' 19 classes have in common."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog

from ddep.data.datasets.cityscapes_classes import CLASS_SUBSETS, CLASSES, label_table

SETS = [
    "gta5_sem_seg_all",
    "synthia_sem_seg_all",
    "bdd100k_sem_seg_val",
    "mapillary_vistas_19_sem_seg_val",
]


@pytest.mark.parametrize("name", SETS)
def test_metadata_are_those_of_detectron2s_cityscapes(name: str, root: Path) -> None:
    """Otherwise one model could not train on both."""
    metadata = MetadataCatalog.get(name)
    cityscapes = MetadataCatalog.get("cityscapes_fine_sem_seg_train")
    for key in ("stuff_classes", "thing_classes", "ignore_label", "class_subsets"):
        assert metadata.get(key) == cityscapes.get(key) is not None, key
    assert metadata.evaluator_type == "sem_seg"
    assert metadata.stuff_colors[0] == [128, 64, 128]
    assert len(metadata.stuff_colors) == 19


def test_classes_that_synthia_is_evaluated_with() -> None:
    # Indices among the 19, as in published evaluations.
    sixteen = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18]
    thirteen = [0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18]
    assert CLASS_SUBSETS.keys() == {"mIoU16", "mIoU13"}
    assert CLASS_SUBSETS["mIoU16"] == [CLASSES[i] for i in sixteen]
    assert CLASS_SUBSETS["mIoU13"] == [CLASSES[i] for i in thirteen]


def test_label_table() -> None:
    assert label_table({1: "sky", 3: "road"}, 4).tolist() == [255, 10, 255, 0, 255]
