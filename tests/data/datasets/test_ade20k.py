from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES
from PIL import Image
from pycocotools import mask as coco_mask

from ddep.data.datasets.ade20k_classes import CATEGORIES, THINGS
from ddep.data.datasets.ade20k_preparation import prepare_ade20k
from ddep.data.image_reader import read_panoptic
from ddep.errors import UserError
from tests.data.datasets.imitation_trees import save, write_ade20k

SKY, BED = 2, 7
COUNTS = {
    "train": {"semantic labels": 1, "panoptic labels": 1, "instances": 2},
    "val": {"semantic labels": 2, "panoptic labels": 2, "instances": 4},
}


@pytest.fixture
def ade20k(root: Path) -> Path:
    return write_ade20k(root)


def test_classes() -> None:
    assert [category["name"] for category in CATEGORIES] == list(ADE20K_SEM_SEG_CATEGORIES)
    assert len(CATEGORIES) == 150
    assert CATEGORIES[0] == {"id": 0, "name": "wall", "isthing": 0, "color": [120, 120, 120]}
    assert CATEGORIES[149] == {"id": 149, "name": "flag", "isthing": 1, "color": [92, 0, 255]}
    assert len(THINGS) == 100
    assert [c["id"] for c in THINGS] == [c["id"] for c in CATEGORIES if c["isthing"]]
    # The instance benchmark calls these classes by another of their names.
    names = {c["id"]: c["name"] for c in THINGS}
    other = {i: n for i, n in names.items() if n not in CATEGORIES[i]["name"].split(", ")}
    assert other == {
        8: "windowpane",
        37: "bathtub",
        38: "railing",
        87: "streetlight",
        89: "television receiver",
        90: "airplane",
        92: "apparel",
        138: "ashcan",
    }


def test_metadata(root: Path) -> None:
    folder = root / "ADEChallengeData2016"
    panoptic = MetadataCatalog.get("ade20k_panoptic_val")
    assert panoptic.evaluator_type == "ade20k_panoptic_seg"
    assert (panoptic.ignore_label, panoptic.label_divisor) == (255, 1000)
    assert panoptic.image_root == str(folder / "images" / "validation")
    assert panoptic.panoptic_root == str(folder / "ade20k_panoptic_val")
    assert panoptic.panoptic_json == str(folder / "ade20k_panoptic_val.json")
    assert panoptic.json_file == str(folder / "ade20k_instance_val.json")
    assert panoptic.stuff_classes[BED] == panoptic.thing_classes[BED] == "bed"
    assert panoptic.stuff_dataset_id_to_contiguous_id == {i: i for i in range(150)}
    assert panoptic.thing_dataset_id_to_contiguous_id == {c["id"]: c["id"] for c in THINGS}
    instance = MetadataCatalog.get("ade20k_instance_train")
    assert instance.evaluator_type == "coco"
    assert instance.image_root == str(folder / "images" / "training")
    assert instance.json_file == str(folder / "ade20k_instance_train.json")
    assert instance.thing_classes[:3] == ["bed", "windowpane", "cabinet"]
    assert instance.thing_dataset_id_to_contiguous_id[149] == 99
    semantic = MetadataCatalog.get("ade20k_sem_seg_train")
    assert semantic.evaluator_type == "sem_seg"
    assert semantic.stuff_classes == panoptic.stuff_classes
    assert semantic.stuff_colors == panoptic.stuff_colors
    assert semantic.ignore_label == 255


def test_semantic_labels_are_shifted(ade20k: Path) -> None:
    labels = ade20k / "annotations" / "training" / "ADE_train_00000000.png"
    save(labels, np.resize(np.arange(151, dtype=np.uint8), (40, 40)))
    assert prepare_ade20k(ade20k, workers=1) == COUNTS
    (record,) = DatasetCatalog.get("ade20k_sem_seg_train")
    found = np.asarray(Image.open(record["sem_seg_file_name"])).ravel()
    assert found[:151].tolist() == [255, *range(150)]
    assert len(DatasetCatalog.get("ade20k_sem_seg_val")) == 2


def test_panoptic_labels_have_the_instances_on_top_of_stuff(ade20k: Path) -> None:
    assert prepare_ade20k(ade20k, workers=2) == COUNTS
    (record,) = DatasetCatalog.get("ade20k_panoptic_train")
    assert record["image_id"] == "ADE_train_00000000"
    assert (record["height"], record["width"]) == (40, 40)
    segments = {segment["id"]: segment for segment in record["segments_info"]}
    described = [(s["category_id"], s["isthing"], s["area"], s["bbox"]) for s in segments.values()]
    assert described == [
        (SKY, False, 360, [0, 0, 10, 40]),
        (BED, True, 200, [10, 0, 10, 20]),
        (BED, True, 240, [8, 20, 12, 20]),
    ]
    sky, upper, lower = segments
    upper_row = [sky] * 10 + [upper] * 10 + [0] * 20
    lower_row = [sky] * 8 + [lower] * 12 + [0] * 20
    expected = np.repeat([upper_row, lower_row], 20, axis=0)
    np.testing.assert_array_equal(read_panoptic(record["pan_seg_file_name"]), expected)
    semantic = np.asarray(Image.open(record["sem_seg_file_name"]))
    assert semantic[0].tolist() == [SKY] * 10 + [BED] * 10 + [255] * 10 + [BED] * 10


def test_covered_stuff_is_no_segment(ade20k: Path) -> None:
    path = ade20k / "annotations_instance" / "training" / "ADE_train_00000000.png"
    save(path, np.full((40, 40, 3), (100, 255, 0), dtype=np.uint8))
    prepare_ade20k(ade20k, workers=1)
    (record,) = DatasetCatalog.get("ade20k_panoptic_train")
    (segment,) = record["segments_info"]
    assert (segment["category_id"], segment["area"]) == (149, 1600)


def test_instance_labels(ade20k: Path) -> None:
    prepare_ade20k(ade20k, workers=1)
    records = DatasetCatalog.get("ade20k_instance_val")
    assert [record["image_id"] for record in records] == ["ADE_val_00000000", "ADE_val_00000001"]
    assert Path(records[1]["file_name"]).is_file()
    upper, lower = records[1]["annotations"]
    assert upper["category_id"] == lower["category_id"] == 0
    assert upper["bbox"] == [10, 0, 10, 20]
    expected = np.zeros((40, 40), dtype=np.uint8)
    expected[20:, 8:20] = 1
    np.testing.assert_array_equal(coco_mask.decode(lower["segmentation"]), expected)
    content = json.loads((ade20k / "ade20k_instance_val.json").read_text())
    assert [a["id"] for a in content["annotations"]] == [1, 2, 3, 4]
    assert {a["category_id"] for a in content["annotations"]} == {BED}
    assert content["annotations"][1]["area"] == 240


def test_without_instance_labels_there_are_only_semantic_ones(ade20k: Path) -> None:
    (ade20k / "annotations_instance").rename(ade20k / "elsewhere")
    counts = prepare_ade20k(ade20k, workers=1)
    assert counts == {"train": {"semantic labels": 1}, "val": {"semantic labels": 2}}
    assert not list(ade20k.glob("ade20k_*"))
    with pytest.raises(UserError, match=r"ade20k_panoptic_val\.json cannot be read"):
        DatasetCatalog.get("ade20k_panoptic_val")


def test_mistakes_in_semantic_labels(ade20k: Path) -> None:
    with pytest.raises(UserError, match="--workers is 0; expected at least 1"):
        prepare_ade20k(ade20k, workers=0)
    label = ade20k / "annotations" / "validation" / "ADE_val_00000001.png"
    save(label, np.full((40, 40), 151, dtype=np.uint8))
    with pytest.raises(UserError, match=f"{label}: label 151 is out of range; expected 1..150"):
        prepare_ade20k(ade20k, workers=1)
    save(label, np.full((40, 39), 150, dtype=np.uint8))
    with pytest.raises(UserError, match=f"{label}: 39x40 pixels, but its image .* has 40x40"):
        prepare_ade20k(ade20k, workers=1)
    label.unlink()
    with pytest.raises(UserError, match=f"00000001.jpg: its label {label} is missing"):
        prepare_ade20k(ade20k, workers=1)
    with pytest.raises(UserError, match="training is not a folder; expected ADEChallengeData2016"):
        prepare_ade20k(ade20k / "images", workers=1)


def test_mistakes_in_instance_labels(ade20k: Path) -> None:
    label = ade20k / "annotations_instance" / "training" / "ADE_train_00000000.png"
    pixels = np.asarray(Image.open(label)).copy()
    for numbers, found in (((101, 101), r"\[101\]"), ((0, 0), r"\[0\]"), ((1, 5), r"\[1, 5\]")):
        wrong = pixels.copy()
        wrong[20:30, 8:20, 0], wrong[30:, 8:20, 0] = numbers
        save(label, wrong)
        message = rf"{label}: instance 2 \(green\) is of the classes {found} \(red\); expected one"
        with pytest.raises(UserError, match=message):
            prepare_ade20k(ade20k, workers=1)
    assert not (ade20k / "ade20k_panoptic_train.json").exists()
    save(label, pixels[:, :39])
    with pytest.raises(UserError, match=f"{label}: 39x40 pixels, but its image .* has 40x40"):
        prepare_ade20k(ade20k, workers=1)
    label.unlink()
    with pytest.raises(UserError, match=f"00000000.jpg: its label {label} is missing"):
        prepare_ade20k(ade20k, workers=1)
    label.parent.rename(ade20k / "elsewhere")
    with pytest.raises(UserError, match="training is not a folder; expected annotations_instance/"):
        prepare_ade20k(ade20k, workers=1)


def test_annotations_of_another_kind(ade20k: Path) -> None:
    prepare_ade20k(ade20k, workers=1)
    path = ade20k / "ade20k_instance_train.json"
    content = json.loads(path.read_text())
    message = f"{path}: not the instance annotations of ade20k_instance_train"
    for wrong in (
        {**content, "categories": [{"id": 7, "name": "sofa"}]},
        {key: value for key, value in content.items() if key != "categories"},
        [],
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(UserError, match=message) as caught:
            DatasetCatalog.get("ade20k_instance_train")
        assert "\n" not in str(caught.value)
    path.write_text(json.dumps({**content, "images": [], "annotations": []}))
    with pytest.raises(UserError, match=f"{path}: lists no images"):
        DatasetCatalog.get("ade20k_instance_train")
    path.write_text(json.dumps(content))
    for image in (ade20k / "images" / "training").iterdir():
        image.unlink()
    for name in ("ade20k_instance_train", "ade20k_panoptic_train"):
        with pytest.raises(UserError, match=r"0\.jpg does not exist, nor .*\.json lists"):
            DatasetCatalog.get(name)
