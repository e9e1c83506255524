from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.cityscapes import load_cityscapes_semantic
from detectron2.data.datasets.cityscapes_panoptic import load_cityscapes_panoptic
from PIL import Image
from pycocotools import mask as coco_mask

from ddep.data.datasets.cityscapes import CATEGORIES, instance_ids_file, prepare_cityscapes
from ddep.data.image_reader import read_panoptic
from ddep.errors import UserError
from tests.data.datasets.imitation_trees import SIDE, save, write_cityscapes

COUNTS = {
    "train": {"label images": 1, "instances": 1},
    "val": {"label images": 2, "instances": 2},
}


@pytest.fixture
def cityscapes(root: Path) -> Path:
    return write_cityscapes(root)


def columns(*values: int) -> np.ndarray:
    """A label image of four upright stripes, as the imitation's are."""
    return np.repeat(values, 10)[None].repeat(SIDE, axis=0)


def test_metadata(root: Path) -> None:
    metadata = MetadataCatalog.get("cityscapes_fine_instance_seg_val")
    folder = root / "cityscapes"
    assert metadata.image_root == str(folder / "leftImg8bit" / "val")
    assert metadata.json_file == str(folder / "gtFine" / "cityscapes_instances_val.json")
    assert metadata.gt_dir == str(folder / "gtFine" / "val")
    assert metadata.evaluator_type == "cityscapes_instance"
    names = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    assert metadata.thing_classes == names
    ids = metadata.thing_dataset_id_to_contiguous_id
    assert ids == {24: 0, 25: 1, 26: 2, 27: 3, 28: 4, 31: 5, 32: 6, 33: 7}


def test_label_image_of_an_image(cityscapes: Path) -> None:
    folder = cityscapes / "gtFine" / "train"
    image = next((cityscapes / "leftImg8bit" / "train").rglob("*.png"))
    assert Path(instance_ids_file(str(folder), str(image))).is_file()


def test_semantic_labels_are_what_detectron2_reads(cityscapes: Path) -> None:
    assert prepare_cityscapes(cityscapes, workers=2) == COUNTS
    folders = (str(cityscapes / kind / "val") for kind in ("leftImg8bit", "gtFine"))
    for record in load_cityscapes_semantic(*folders):
        found = np.asarray(Image.open(record["sem_seg_file_name"]))
        np.testing.assert_array_equal(found, columns(0, 13, 13, 255))


def test_every_class_has_its_semantic_label(cityscapes: Path) -> None:
    path = next((cityscapes / "gtFine" / "train").rglob("*_instanceIds.png"))
    save(path, np.arange(34, dtype=np.uint16)[None])
    prepare_cityscapes(cityscapes, workers=1)
    labels = np.asarray(
        Image.open(path.with_name(path.name.replace("instanceIds", "labelTrainIds")))
    )
    evaluated = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    expected = [evaluated.index(i) if i in evaluated else 255 for i in range(34)]
    assert labels[0].tolist() == expected


def test_panoptic_labels_are_what_detectron2_reads(cityscapes: Path) -> None:
    prepare_cityscapes(cityscapes, workers=1)
    ids = {
        f"{kind}_dataset_id_to_contiguous_id": {
            category["id"]: i
            for i, category in enumerate(CATEGORIES)
            if bool(category["isthing"]) == (kind == "thing")
        }
        for kind in ("thing", "stuff")
    }
    (record,) = load_cityscapes_panoptic(
        str(cityscapes / "leftImg8bit" / "train"),
        str(cityscapes / "gtFine" / "cityscapes_panoptic_train"),
        str(cityscapes / "gtFine" / "cityscapes_panoptic_train.json"),
        ids,
    )
    assert record["image_id"] == "bonn_000000_000019"
    np.testing.assert_array_equal(
        read_panoptic(record["pan_seg_file_name"]), columns(7, 26001, 26, 0)
    )
    assert record["segments_info"] == [
        {"id": 7, "category_id": 0, "area": 400, "bbox": [0, 0, 10, 40], "iscrowd": 0},
        {"id": 26, "category_id": 13, "area": 400, "bbox": [20, 0, 10, 40], "iscrowd": 1},
        {"id": 26001, "category_id": 13, "area": 400, "bbox": [10, 0, 10, 40], "iscrowd": 0},
    ]


def test_instance_labels(cityscapes: Path) -> None:
    prepare_cityscapes(cityscapes, workers=1)
    records = DatasetCatalog.get("cityscapes_fine_instance_seg_val")
    assert [record["image_id"][:11] for record in records] == ["bonn_000000", "bonn_000001"]
    assert Path(records[1]["file_name"]).is_file()
    group, car = records[1]["annotations"]
    assert (group["iscrowd"], group["category_id"]) == (1, 2)
    assert (car["iscrowd"], car["category_id"]) == (0, 2)
    assert car["bbox"] == [10, 0, 10, 40]
    np.testing.assert_array_equal(coco_mask.decode(car["segmentation"]), columns(0, 1, 0, 0))


def test_one_split_is_enough(cityscapes: Path) -> None:
    (cityscapes / "gtFine" / "train").rename(cityscapes / "elsewhere")
    assert prepare_cityscapes(cityscapes, workers=1) == {"val": COUNTS["val"]}


def test_an_interrupted_preparation_is_noticed(cityscapes: Path) -> None:
    prepare_cityscapes(cityscapes, workers=1)
    path = next((cityscapes / "gtFine" / "val").rglob("*_instanceIds.png"))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=f"{path} cannot be read"):
        prepare_cityscapes(cityscapes, workers=1)
    assert (cityscapes / "gtFine" / "cityscapes_panoptic_train.json").exists()
    assert not (cityscapes / "gtFine" / "cityscapes_panoptic_val.json").exists()
    with pytest.raises(UserError, match=r"cityscapes_instances_val\.json: not the instance annot"):
        DatasetCatalog.get("cityscapes_fine_instance_seg_val")


def test_mistakes(cityscapes: Path) -> None:
    with pytest.raises(UserError, match="--workers is 0"):
        prepare_cityscapes(cityscapes, workers=0)
    with pytest.raises(UserError, match=r"gtFine: no \{train,val\}/\*/\*_gtFine_instanceIds\.png"):
        prepare_cityscapes(cityscapes / "gtFine", workers=1)
    path = next((cityscapes / "gtFine" / "val").rglob("*_instanceIds.png"))
    save(path, np.full((SIDE, SIDE), 34001, dtype=np.uint16))
    with pytest.raises(
        UserError, match=rf"{path}: label 34 is out of range; expected classes 0..33"
    ):
        prepare_cityscapes(cityscapes, workers=1)


def test_json_files_are_valid(cityscapes: Path) -> None:
    prepare_cityscapes(cityscapes, workers=1)
    content = json.loads((cityscapes / "gtFine" / "cityscapes_panoptic_val.json").read_text())
    assert content["images"][0] == {
        "id": "bonn_000000_000019",
        "file_name": "bonn_000000_000019_gtFine_leftImg8bit.png",
        "height": SIDE,
        "width": SIDE,
    }
    assert [category["id"] for category in content["categories"]][:3] == [7, 8, 11]
    content = json.loads((cityscapes / "gtFine" / "cityscapes_instances_val.json").read_text())
    assert [annotation["id"] for annotation in content["annotations"]] == [1, 2, 3, 4]
