"""CSV files with the classes of images, and the custom data sets and shapes that have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ddep.config import add_ddep_config
from ddep.data.datasets import register_from_config
from ddep.data.datasets.class_lists import ClassList, write_class_list
from ddep.data.datasets.shapes import generate_shapes
from ddep.errors import UserError

ROWS = 'b/2.png,sea,sky\n\na.png , sky\n"c,c.png"\n'


def write(folder: Path, text: str = ROWS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return folder / "list.csv"


def images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / name)
    return folder


def test_rows_hold_an_image_and_any_number_of_classes(tmp_path: Path) -> None:
    found = ClassList.read(write(tmp_path))
    assert found.classes == ["sea", "sky"]
    assert found.of_image == {"b/2.png": [0, 1], "a.png": [1], "c,c.png": []}
    assert found.multi_label
    given = ClassList.read(write(tmp_path, "1.png,sky\n2.png,sea\n"), ["sky", "land", "sea"])
    assert given.of_image == {"1.png": [0], "2.png": [2]}
    assert not given.multi_label


def test_what_is_written_is_read(tmp_path: Path) -> None:
    classes = {'a "b".png': ["x, y", "z"], "ü/1.png": [], "2.png": ["z"]}
    write_class_list(tmp_path / "list.csv", classes)
    found = ClassList.read(tmp_path / "list.csv")
    names = {image: [found.classes[n] for n in of] for image, of in found.of_image.items()}
    assert names == classes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"it names no image; expected a row for each"),
        ("1.png,sky\n1.png,sea\n", r"row 2: 1\.png has a row already"),
        ("1.png,,sky\n", r"row 1: a field is empty; expected the image's path and then"),
        (",sky\n", r"row 1: a field is empty"),
        ("1.png,sky\n2.png,snow\n", r"2\.png is of class 'snow'; expected one of sky, sea"),
    ],
)
def test_impossible_rows_are_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"list\.csv(: |, ){message}"):
        ClassList.read(write(tmp_path, text), ["sky", "sea"])


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.csv: cannot be read \(No such file"):
        ClassList.read(tmp_path / "gone.csv")
    write(tmp_path).write_bytes(b"1.png,\xff\n")
    with pytest.raises(UserError, match=r"list\.csv: not UTF-8 text"):
        ClassList.read(tmp_path / "list.csv")


def config(tmp_path: Path, **keys: Any) -> CfgNode:
    cfg = get_cfg()
    add_ddep_config(cfg)
    entry = {
        "name": "beaches",
        "kind": "classes",
        "images": str(tmp_path / "images"),
        "csv": str(tmp_path / "list.csv"),
    }
    cfg.DATASETS.CUSTOM = [entry | keys]
    cfg.DATASETS.TRAIN = ("beaches",)
    return cfg


def test_a_custom_set_has_the_images_that_the_file_names(tmp_path: Path) -> None:
    write(tmp_path)
    images(tmp_path / "images", "a.png", "b/2.png", "c,c.png", "unlisted.png")
    register_from_config(config(tmp_path, classes=["sky", "sea", "land"]))
    metadata = MetadataCatalog.get("beaches")
    assert metadata.labelled_for == ("classification",)
    assert metadata.classes == ["sky", "sea", "land"]
    assert metadata.multi_label
    records = DatasetCatalog.get("beaches")
    assert {record["image_id"]: record["classes"] for record in records} == {
        "a.png": [0],
        "b/2.png": [0, 1],
        "c,c.png": [],
    }
    assert all(Path(record["file_name"]).is_file() for record in records)


def test_mistakes_in_a_custom_set_are_one_line(tmp_path: Path) -> None:
    images(tmp_path / "images", "a.png", "b/2.png")
    where = r"DATASETS\.CUSTOM, entry 1 \(beaches\): "
    with pytest.raises(UserError, match=rf"{where}csv .*list\.csv does not exist"):
        register_from_config(config(tmp_path))
    write(tmp_path)
    with pytest.raises(UserError, match=rf"{where}.*c,c\.png \(1 of 3 images\) is not in the f"):
        register_from_config(config(tmp_path))
    with pytest.raises(UserError, match=rf"{where}csv .*is of class 'sea'; expected one of sky$"):
        register_from_config(config(tmp_path, classes=["sky"]))
    with pytest.raises(UserError, match=rf"{where}images: there is no such folder"):
        register_from_config(config(tmp_path, images=str(tmp_path / "gone")))


def test_shapes_say_which_classes_they_show(root: Path) -> None:
    generate_shapes(root / "shapes", train=6, val=3, unlabelled=4, size=48)
    for split, number in (("train", 6), ("val", 3), ("unlabelled", 4)):
        cfg = get_cfg()
        add_ddep_config(cfg)
        cfg.DATASETS.TRAIN = (f"shapes_classes_{split}",)
        register_from_config(cfg)
        assert len(DatasetCatalog.get(f"shapes_classes_{split}")) == number
    panoptic = DatasetCatalog.get("shapes_panoptic_train")
    assert MetadataCatalog.get("shapes_classes_train").classes == list(
        MetadataCatalog.get("shapes_panoptic_train").stuff_classes
    )
    expected = {
        record["file_name"]: sorted({s["category_id"] for s in record["segments_info"]})
        for record in panoptic
    }
    records = DatasetCatalog.get("shapes_classes_train")
    assert {record["file_name"]: record["classes"] for record in records} == expected
