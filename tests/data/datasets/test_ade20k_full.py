from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_sem_seg
from PIL import Image

from ddep.data.datasets.ade20k_full import CLASSES, prepare_ade20k_full
from ddep.data.image_reader import read_image, read_labels
from ddep.errors import UserError
from tests.data.datasets.imitation_trees import SIDE, save, write_ade20k_full


@pytest.fixture
def folder(root: Path) -> Path:
    return write_ade20k_full(root)


def test_classes() -> None:
    assert len(CLASSES) == 847
    assert len({class_id for class_id, _ in CLASSES}) == 847
    assert CLASSES[0] == (2978, "wall")
    assert CLASSES[2] == (2420, "sky")
    assert CLASSES[846] == (3148, "adding machine, totalizer, totaliser")


def test_metadata(root: Path) -> None:
    metadata = MetadataCatalog.get("ade20k_full_sem_seg_val")
    folder = root / "ADE20K_2021_17_01"
    assert metadata.evaluator_type == "sem_seg"
    assert metadata.ignore_label == 65535
    assert metadata.image_root == str(folder / "images_detectron2" / "validation")
    assert metadata.sem_seg_root == str(folder / "annotations_detectron2" / "validation")
    assert len(metadata.stuff_classes) == 847


def test_labels_are_indices_into_the_list_of_classes(folder: Path) -> None:
    assert prepare_ade20k_full(folder, workers=2) == {
        "train": {"images": 2},
        "val": {"images": 2},
    }
    first, second = DatasetCatalog.get("ade20k_full_sem_seg_train")
    assert first["file_name"].endswith("images_detectron2/training/ADE_frame_00000000.jpg")
    assert second["sem_seg_file_name"].endswith("training/ADE_train_00000000.tif")
    assert [first, second] == load_sem_seg(
        *(str(folder / f"{kind}_detectron2" / "training") for kind in ("annotations", "images")),
        gt_ext="tif",
        image_ext="jpg",
    )
    # wall, sky, the last class and one that is not among the 847
    expected = np.repeat([0, 2, 846, 65535], 10)[None].repeat(SIDE, axis=0)
    np.testing.assert_array_equal(read_labels(first["sem_seg_file_name"]), expected)
    original = next(folder.rglob("street/ADE_frame_00000000.jpg"))
    assert Path(first["file_name"]).read_bytes() == original.read_bytes()


def test_large_images_are_scaled_down(folder: Path) -> None:
    image = next(folder.rglob("ADE_train_*.jpg"))
    rows = np.arange(1024, dtype=np.uint8)[:, None, None].repeat(700, axis=1)
    save(image, rows.repeat(3, axis=2))
    labels = np.zeros((1024, 700, 3), dtype=np.uint8)
    labels[:512] = (2420 // 256 * 10, 2420 % 256, 9)
    save(image.with_name(f"{image.stem}_seg.png"), labels)
    prepare_ade20k_full(folder, workers=1)
    record = DatasetCatalog.get("ade20k_full_sem_seg_train")[1]
    found = read_labels(record["sem_seg_file_name"])
    assert found.shape == (749, 512)
    assert np.unique(found[:374]).tolist() == [2]
    assert np.unique(found[375:]).tolist() == [65535]
    assert read_image(record["file_name"]).shape == (749, 512, 3)


def test_mistakes(folder: Path) -> None:
    with pytest.raises(UserError, match="--workers is 0"):
        prepare_ade20k_full(folder, workers=0)
    with pytest.raises(
        UserError, match=r"no images of train in it; expected ADE20K_2021_17_01 with"
    ):
        prepare_ade20k_full(folder / "nowhere", workers=1)
    label = next(folder.rglob("ADE_val_00000001_seg.png"))
    save(label, np.zeros((4, 5, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=f"{label}: 5x4 pixels, but its image .* has 40x40"):
        prepare_ade20k_full(folder, workers=1)
    label.unlink()
    with pytest.raises(UserError, match=r"ADE_val_00000001\.jpg: its label ADE_val_00000001_seg"):
        prepare_ade20k_full(folder, workers=1)


def test_images_without_labels_are_noticed(folder: Path) -> None:
    prepare_ade20k_full(folder, workers=1)
    name = "ade20k_full_sem_seg_val"
    prepared = folder / "annotations_detectron2" / "validation" / "ADE_val_00000001.tif"
    image = folder / "images_detectron2" / "validation" / "ADE_val_00000001.jpg"
    content = prepared.read_bytes()
    prepared.unlink()
    with pytest.raises(UserError, match=f"{image} has no file of that name in {prepared.parent};"):
        DatasetCatalog.get(name)
    prepared.write_bytes(content)
    image.unlink()
    with pytest.raises(UserError, match=f"{prepared} has no file of that name in {image.parent};"):
        DatasetCatalog.get(name)
    for path in prepared.parent.iterdir():
        path.rename(path.with_suffix(".png"))
    with pytest.raises(UserError, match=f"{prepared.parent}: no .tif files in it; expected"):
        DatasetCatalog.get(name)


def test_labels_are_compressed(folder: Path) -> None:
    prepare_ade20k_full(folder, workers=1)
    with Image.open(next(folder.rglob("*.tif"))) as image:
        assert image.mode == "I;16"
        assert image.info["compression"] == "tiff_adobe_deflate"
