from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.data.datasets.cityscapes_classes import CLASSES
from ddep.data.datasets.mapillary_vistas import (
    CATEGORIES,
    prepare_mapillary_vistas,
    read_as_cityscapes,
)
from ddep.data.image_reader import read_labels, read_panoptic
from ddep.errors import UserError
from tests.data.datasets.imitation_trees import save, write_mapillary_vistas

# The contiguous ids: places among the 65 classes.
SKY, CAR = 27, 55


def test_classes() -> None:
    assert [category["id"] for category in CATEGORIES] == list(range(1, 66))
    assert sum(category["isthing"] for category in CATEGORIES) == 37
    assert CATEGORIES[0] == {"id": 1, "name": "Bird", "isthing": 1, "color": [165, 42, 42]}
    assert CATEGORIES[SKY] == {"id": 28, "name": "Sky", "isthing": 0, "color": [70, 130, 180]}
    assert CATEGORIES[CAR] == {"id": 56, "name": "Car", "isthing": 1, "color": [0, 0, 142]}
    assert CATEGORIES[64]["name"] == "Ego Vehicle"


def test_metadata(root: Path) -> None:
    folder = root / "mapillary_vistas" / "validation"
    panoptic = MetadataCatalog.get("mapillary_vistas_panoptic_val")
    assert panoptic.evaluator_type == "mapillary_vistas_panoptic_seg"
    assert (panoptic.ignore_label, panoptic.label_divisor) == (65, 1000)
    assert panoptic.image_root == str(folder / "images")
    assert panoptic.panoptic_root == str(folder / "panoptic")
    assert panoptic.panoptic_json == str(folder / "panoptic" / "panoptic_2018.json")
    assert panoptic.stuff_dataset_id_to_contiguous_id == {i: i - 1 for i in range(1, 66)}
    assert panoptic.thing_dataset_id_to_contiguous_id[56] == CAR
    assert len(panoptic.thing_dataset_id_to_contiguous_id) == 37
    semantic = MetadataCatalog.get("mapillary_vistas_sem_seg_train")
    assert semantic.evaluator_type == "sem_seg"
    assert semantic.ignore_label == 65
    assert semantic.stuff_classes == panoptic.stuff_classes
    assert semantic.stuff_colors == panoptic.stuff_colors


def test_records(root: Path) -> None:
    folder = write_mapillary_vistas(root) / "validation"
    first, second = DatasetCatalog.get("mapillary_vistas_panoptic_val")
    # The JSON file gives the names of the label images.
    assert first["file_name"] == str(folder / "images" / "val_0.jpg")
    assert first["sem_seg_file_name"] == str(folder / "labels" / "val_0.png")
    assert second["image_id"] == "val_1"
    segments = [(s["id"], s["category_id"], s["isthing"]) for s in first["segments_info"]]
    assert segments == [(284, SKY, False), (79872, CAR, True)]
    expected = np.repeat([284, 284, 79872, 0], 10)[None].repeat(40, axis=0)
    np.testing.assert_array_equal(read_panoptic(first["pan_seg_file_name"]), expected)
    first, second = DatasetCatalog.get("mapillary_vistas_sem_seg_val")
    assert second["file_name"] == str(folder / "images" / "val_1.jpg")
    assert np.unique(read_labels(second["sem_seg_file_name"])).tolist() == [SKY, CAR, 65]


def test_annotations_of_another_kind(root: Path) -> None:
    folder = write_mapillary_vistas(root) / "training"
    path = folder / "panoptic" / "panoptic_2018.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segments_info"][0]["category_id"] = 70
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"panoptic_2018\.json: not a panoptic JSON file .*70"):
        DatasetCatalog.get("mapillary_vistas_panoptic_train")


def test_labels_of_cityscapes_classes(root: Path) -> None:
    folder = write_mapillary_vistas(root)
    counts = {"train": {"labels": 1}, "val": {"labels": 2}}
    assert prepare_mapillary_vistas(folder, workers=2) == counts
    first, second = DatasetCatalog.get("mapillary_vistas_19_sem_seg_val")
    assert first["file_name"] == str(folder / "validation" / "images" / "val_0.jpg")
    expected = np.repeat([10, 10, 13, 255], 10)[None].repeat(40, axis=0)
    np.testing.assert_array_equal(read_labels(second["sem_seg_file_name"]), expected)
    # The sets of 65 classes stay as they are.
    assert len(DatasetCatalog.get("mapillary_vistas_sem_seg_train")) == 1
    shutil.rmtree(folder / "training")
    assert prepare_mapillary_vistas(folder, workers=1) == {"val": {"labels": 2}}


def test_which_classes_are_cityscapes(tmp_path: Path) -> None:
    path = save(tmp_path / "label.png", np.arange(66, dtype=np.uint8)[None])
    found: dict[str, set[str]] = {}
    for label, category in zip(read_as_cityscapes(path)[0, :65], CATEGORIES, strict=True):
        if label != 255:
            found.setdefault(CLASSES[label], set()).add(category["name"])
    assert found == {
        "road": {"Road", "Lane Marking - General", "Manhole"},
        "sidewalk": {"Sidewalk", "Curb"},
        "building": {"Building"},
        "wall": {"Wall"},
        "fence": {"Fence"},
        "pole": {"Pole", "Utility Pole"},
        "traffic light": {"Traffic Light"},
        "traffic sign": {"Traffic Sign (Front)"},
        "vegetation": {"Vegetation"},
        "terrain": {"Terrain"},
        "sky": {"Sky"},
        "person": {"Person"},
        "rider": {"Bicyclist", "Motorcyclist", "Other Rider"},
        "car": {"Car"},
        "truck": {"Truck"},
        "bus": {"Bus"},
        "train": {"On Rails"},
        "motorcycle": {"Motorcycle"},
        "bicycle": {"Bicycle"},
    }


def test_mistakes_in_the_labels_to_map(root: Path) -> None:
    folder = write_mapillary_vistas(root)
    with pytest.raises(
        UserError, match=r"neither training/ nor validation/ in it; expected Mapill"
    ):
        prepare_mapillary_vistas(folder / "nowhere", workers=1)
    prepare_mapillary_vistas(folder, workers=1)
    label = folder / "validation" / "labels" / "val_1.png"
    # Version 2.0 has 124 classes.
    save(label, np.full((40, 40), 123, dtype=np.uint8))
    with pytest.raises(
        UserError, match=rf"{label}: label 123 is out of range; expected 0\.\.65, of"
    ):
        prepare_mapillary_vistas(folder, workers=1)
    with pytest.raises(UserError, match=r"labels_19\.txt cannot be read"):
        DatasetCatalog.get("mapillary_vistas_19_sem_seg_val")
    label.unlink()
    with pytest.raises(UserError, match=rf"val_1\.jpg: its label {label} is missing"):
        prepare_mapillary_vistas(folder, workers=1)
