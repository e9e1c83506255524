from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from scipy.io import savemat

from ddep.data.datasets.pascal_context import CLASSES, prepare_pascal_context, read_pascal_context
from ddep.data.datasets.tables import read_table
from ddep.data.image_reader import read_labels
from ddep.errors import UserError
from tests.data.datasets.imitation_photographs import write_pascal_context
from tests.data.datasets.imitation_streets import stripes
from tests.data.datasets.imitation_trees import SIDE, random_image, save

COUNTS = {"train": {"images": 1}, "val": {"images": 2}}


@pytest.fixture
def voc(root: Path) -> Path:
    return write_pascal_context(root)


def use_pngs(voc: Path) -> Path:
    """Replace the original labels by those that mmsegmentation writes; return their folder."""
    folder = voc / "SegmentationClassContext"
    shutil.rmtree(voc / "trainval")
    (voc / "ImageSets" / "Main").rename(voc / "ImageSets" / "SegmentationContext")
    for image in (voc / "JPEGImages").glob("2008*.jpg"):
        save(folder / f"{image.stem}.png", stripes([1, 59, 0, 0]))
    return folder


def test_classes() -> None:
    assert len(CLASSES) == 60
    assert CLASSES[0] == "background"
    assert CLASSES[1:] == sorted(CLASSES[1:])
    assert (CLASSES[1], CLASSES[37], CLASSES[59]) == ("aeroplane", "person", "wood")
    numbers = [int(row["id"]) for row in read_table("pascal_context")]
    # The original list is also alphabetical.
    assert numbers == sorted(set(numbers))
    assert (numbers[1], numbers[37], numbers[59]) == (2, 284, 458)


def test_metadata(root: Path) -> None:
    folder = root / "VOCdevkit" / "VOC2010"
    with_background = MetadataCatalog.get("pascal_context_60_sem_seg_val")
    metadata = MetadataCatalog.get("pascal_context_59_sem_seg_val")
    assert with_background.stuff_classes == CLASSES
    assert metadata.stuff_classes == CLASSES[1:]
    assert metadata.stuff_colors == with_background.stuff_colors[1:]
    assert (metadata.evaluator_type, metadata.ignore_label) == ("sem_seg", 255)
    assert metadata.image_root == str(folder / "JPEGImages")
    assert metadata.sem_seg_root == str(folder / "pascal_context_59")


@pytest.mark.parametrize("form", ["mat", "png"])
def test_labels(voc: Path, form: str) -> None:
    if form == "png":
        use_pngs(voc)
    assert prepare_pascal_context(voc, workers=2) == COUNTS
    for number, expected in ((59, [0, 58, 255, 255]), (60, [1, 59, 0, 0])):
        (train,) = DatasetCatalog.get(f"pascal_context_{number}_sem_seg_train")
        records = DatasetCatalog.get(f"pascal_context_{number}_sem_seg_val")
        assert train["file_name"] == str(voc / "JPEGImages" / "2008_000002.jpg")
        assert [Path(r["file_name"]).stem for r in records] == ["2008_000003", "2008_000007"]
        for record in (train, *records):
            found = read_labels(record["sem_seg_file_name"])
            np.testing.assert_array_equal(found, stripes(expected))


def test_every_number_has_its_label(tmp_path: Path) -> None:
    path = tmp_path / "label.mat"
    savemat(path, {"LabelMap": np.arange(460, dtype=np.uint16)[None]})
    found = read_pascal_context(path, background=True)[0]
    assert found.dtype == np.uint8
    numbers = [int(row["id"]) for row in read_table("pascal_context")]
    assert [number for number in range(460) if found[number]] == numbers[1:]
    assert [CLASSES[label] for label in found[[2, 9, 284, 427]]] == [
        *("aeroplane", "bag", "person", "tvmonitor")
    ]
    without = read_pascal_context(path, background=False)[0]
    np.testing.assert_array_equal(without, np.where(found == 0, 255, found.astype(int) - 1))


def test_an_interrupted_preparation_is_noticed(voc: Path) -> None:
    prepare_pascal_context(voc, workers=1)
    (voc / "trainval" / "2008_000007.mat").write_bytes(b"no label")
    with pytest.raises(UserError, match=r"2008_000007\.mat: not a MATLAB file with LabelMap"):
        prepare_pascal_context(voc, workers=1)
    for split in ("train", "val"):
        with pytest.raises(UserError, match=rf"pascal_context_{split}\.txt cannot be read"):
            DatasetCatalog.get(f"pascal_context_59_sem_seg_{split}")


def test_mistakes(voc: Path) -> None:
    with pytest.raises(UserError, match="--workers is 0"):
        prepare_pascal_context(voc, workers=0)
    with pytest.raises(UserError, match=r"nowhere: no labels of Pascal Context in it; expected"):
        prepare_pascal_context(voc / "nowhere", workers=1)
    label = voc / "trainval" / "2008_000003.mat"
    savemat(label, {"LabelMap": np.full((SIDE, SIDE), 460, dtype=np.uint16)})
    with pytest.raises(UserError, match=f"{label}: label 460 is out of range; expected Pascal"):
        prepare_pascal_context(voc, workers=1)
    savemat(label, {"LabelMap": np.ones((SIDE, SIDE - 1), dtype=np.uint16)})
    with pytest.raises(UserError, match=f"{label}: 39x40 pixels, but its image .* has 40x40"):
        prepare_pascal_context(voc, workers=1)
    savemat(label, {"Labels": np.ones((SIDE, SIDE))})
    with pytest.raises(UserError, match=f"{label}: not a MATLAB file with LabelMap"):
        prepare_pascal_context(voc, workers=1)
    label.unlink()
    with pytest.raises(UserError, match=rf"{label} does not exist, but .*Main/val\.txt lists 2008"):
        prepare_pascal_context(voc, workers=1)
    (voc / "ImageSets" / "Main" / "train.txt").unlink()
    with pytest.raises(
        UserError, match=r"Main/train\.txt cannot be read \(No such file .*trainval"
    ):
        prepare_pascal_context(voc, workers=1)


def test_mistakes_in_png_files(voc: Path) -> None:
    folder = use_pngs(voc)
    label = save(folder / "2008_000002.png", stripes([60, 0, 0, 0]))
    with pytest.raises(UserError, match=f"{label}: label 60 is out of range; expected 0..59"):
        prepare_pascal_context(voc, workers=1)
    save(label, random_image())
    with pytest.raises(UserError, match=f"label image {label} is of kind RGB"):
        prepare_pascal_context(voc, workers=1)
