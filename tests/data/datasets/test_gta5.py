from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from scipy.io import savemat

from ddep.data.datasets.gta5 import prepare_gta5, read_gta5
from ddep.data.image_reader import read_labels
from ddep.errors import UserError
from tests.data.datasets.imitation_streets import stripes, write_gta5
from tests.data.datasets.imitation_trees import save

LEFT_OUT = "left out for their label's size"


@pytest.fixture
def gta5(root: Path) -> Path:
    return write_gta5(root)


def names(name: str) -> list[str]:
    return [Path(record["file_name"]).stem for record in DatasetCatalog.get(name)]


def test_labels_and_splits(gta5: Path) -> None:
    sources = {path: path.read_bytes() for path in gta5.rglob("*.png")}
    assert prepare_gta5(gta5, workers=2) == {
        "train": {"images": 1, LEFT_OUT: 1},
        "val": {"images": 2, LEFT_OUT: 0},
        "test": {"images": 1, LEFT_OUT: 0},
        "all": {"images": 4, LEFT_OUT: 1},
    }
    assert {path: path.read_bytes() for path in sources} == sources
    assert names("gta5_sem_seg_all") == ["00001", "00002", "00003", "00004"]
    assert names("gta5_sem_seg_train") == ["00001"]
    assert names("gta5_sem_seg_val") == ["00002", "00003"]
    assert names("gta5_sem_seg_test") == ["00004"]
    assert (gta5 / "left_out.txt").read_text() == "00005\n"
    assert not (gta5 / "labels_19" / "00005.png").exists()
    for record in DatasetCatalog.get("gta5_sem_seg_all"):
        found = read_labels(record["sem_seg_file_name"])
        np.testing.assert_array_equal(found, stripes([0, 13, 255, 255]))


def test_floating_point_numbers_in_the_split_file(gta5: Path) -> None:
    splits = {"trainIds": [[1.0]], "valIds": [[2.0]], "testIds": [[4.0]]}
    savemat(gta5 / "split.mat", splits)
    prepare_gta5(gta5, workers=1)
    assert names("gta5_sem_seg_val") == ["00002"]


def test_every_number_has_its_label(tmp_path: Path) -> None:
    path = save(tmp_path / "label.png", np.arange(35, dtype=np.uint8)[None])
    evaluated = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    expected = [evaluated.index(i) if i in evaluated else 255 for i in range(35)]
    labels = read_gta5(path)
    assert labels.dtype == np.uint8
    assert labels[0].tolist() == expected


def test_the_original_splits_are_not_needed(gta5: Path) -> None:
    (gta5 / "split.mat").unlink()
    assert prepare_gta5(gta5, workers=1) == {"all": {"images": 4, LEFT_OUT: 1}}
    assert names("gta5_sem_seg_all") == ["00001", "00002", "00003", "00004"]
    with pytest.raises(UserError, match=r"gta5/train\.txt cannot be read \(No such file"):
        DatasetCatalog.get("gta5_sem_seg_train")


def test_missing_images_are_counted(gta5: Path) -> None:
    for folder in ("images", "labels"):
        (gta5 / folder / "00003.png").unlink()
    counts = prepare_gta5(gta5, workers=1)
    assert counts["val"] == {"images": 1, LEFT_OUT: 0, "not there": 1}
    assert counts["all"] == {"images": 3, LEFT_OUT: 1}
    assert names("gta5_sem_seg_val") == ["00002"]


def test_an_interrupted_preparation_is_noticed_and_can_be_repeated(gta5: Path) -> None:
    prepare_gta5(gta5, workers=1)
    label = gta5 / "labels" / "00004.png"
    content = label.read_bytes()
    label.write_bytes(content[:60])
    with pytest.raises(UserError, match=f"label image {label} cannot be read"):
        prepare_gta5(gta5, workers=1)
    with pytest.raises(UserError, match=r"all\.txt cannot be read"):
        DatasetCatalog.get("gta5_sem_seg_all")
    label.write_bytes(content)
    prepare_gta5(gta5, workers=1)
    assert len(names("gta5_sem_seg_all")) == 4


def test_a_label_that_came_to_differ_in_size_is_removed(gta5: Path) -> None:
    prepare_gta5(gta5, workers=1)
    save(gta5 / "images" / "00001.png", np.zeros((20, 40, 3), dtype=np.uint8))
    prepare_gta5(gta5, workers=1)
    assert (gta5 / "left_out.txt").read_text() == "00001\n00005\n"
    assert not (gta5 / "labels_19" / "00001.png").exists()


def test_mistakes(gta5: Path) -> None:
    with pytest.raises(UserError, match="--workers is 0"):
        prepare_gta5(gta5, workers=0)
    with pytest.raises(
        UserError, match=r"images is not a folder; expected GTA5: images/NNNNN\.png"
    ):
        prepare_gta5(gta5 / "nowhere", workers=1)
    label = save(gta5 / "labels" / "00002.png", np.full((40, 40), 35, dtype=np.uint8))
    with pytest.raises(UserError, match=f"{label}: label 35 is out of range; expected Cityscapes'"):
        prepare_gta5(gta5, workers=1)
    save(label, np.zeros((40, 40, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=f"label image {label} is of kind RGB"):
        prepare_gta5(gta5, workers=1)
    label.unlink()
    with pytest.raises(UserError, match=rf"00002\.png: its label {label} is missing"):
        prepare_gta5(gta5, workers=1)


def test_damaged_images(gta5: Path) -> None:
    image = gta5 / "images" / "00002.png"
    image.write_bytes(b"no image")
    with pytest.raises(UserError, match=f"image {image} cannot be read: "):
        prepare_gta5(gta5, workers=1)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + bytes(200), None])
def test_unusable_split_files(gta5: Path, content: bytes | None) -> None:
    path = gta5 / "split.mat"
    if content is None:
        savemat(path, {"trainIds": [[1]]})
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path}: not a MATLAB file with \w+Ids \(") as caught:
        prepare_gta5(gta5, workers=1)
    assert "\n" not in str(caught.value)


def test_palettes_are_not_looked_up(gta5: Path) -> None:
    with Image.open(gta5 / "labels" / "00001.png") as label:
        assert label.mode == "P"
    assert MetadataCatalog.get("gta5_sem_seg_val").names_file == str(gta5 / "val.txt")
    np.testing.assert_array_equal(
        read_gta5(gta5 / "labels" / "00001.png"), stripes([0, 13, 255, 255])
    )
