from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from ddep.data.image_reader import read_labels
from ddep.errors import UserError
from tests.data.datasets.imitation_streets import stripes, write_bdd100k


def test_records(root: Path) -> None:
    folder = write_bdd100k(root)
    (record,) = DatasetCatalog.get("bdd100k_sem_seg_train")
    name = "0004a4c0-00000000"
    assert record == {
        "file_name": str(folder / "images" / "10k" / "train" / f"{name}.jpg"),
        "sem_seg_file_name": str(folder / "labels/sem_seg/masks/train" / f"{name}.png"),
    }
    found = read_labels(record["sem_seg_file_name"])
    np.testing.assert_array_equal(found, stripes([0, 13, 18, 255]))


def test_images_without_a_label_are_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_bdd100k(root)
    label = next((folder / "labels" / "sem_seg" / "masks" / "val").iterdir())
    label.unlink()
    (record,) = DatasetCatalog.get("bdd100k_sem_seg_val")
    assert Path(record["file_name"]).stem != label.stem
    messages = [r.getMessage() for r in caplog.records if r.name.startswith("ddep.data.datasets")]
    assert len(messages) == 1
    assert "1 such files are left out" in messages[0]


def test_no_labels(root: Path) -> None:
    write_bdd100k(root)
    masks = root / "bdd100k" / "labels" / "sem_seg" / "masks" / "val"
    for path in masks.iterdir():
        path.unlink()
    with pytest.raises(UserError, match=f"{masks}: no .png files in it; expected the labels of"):
        DatasetCatalog.get("bdd100k_sem_seg_val")
