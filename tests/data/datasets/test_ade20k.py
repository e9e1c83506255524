from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from detectron2.data.datasets import load_sem_seg
from PIL import Image

from ddep.data.datasets.ade20k import prepare_ade20k
from ddep.errors import UserError


@pytest.fixture
def ade20k(tmp_path: Path) -> Path:
    folder = tmp_path / "ADEChallengeData2016"
    for split in ("training", "validation"):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for index in range(2):
            labels = (np.arange(151, dtype=np.uint8) + index).reshape(1, -1) % 151
            Image.fromarray(labels).save(folder / "annotations" / split / f"{index}.png")
            Image.fromarray(labels).save(folder / "images" / split / f"{index}.jpg")
    return folder


def test_labels_are_shifted(ade20k: Path) -> None:
    assert prepare_ade20k(ade20k) == {
        "train": {"semantic labels": 2},
        "val": {"semantic labels": 2},
    }
    for split in ("training", "validation"):
        records = load_sem_seg(
            str(ade20k / "annotations_detectron2" / split), str(ade20k / "images" / split)
        )
        assert len(records) == 2
        for index, record in enumerate(records):
            found = np.asarray(Image.open(record["sem_seg_file_name"]))[0].tolist()
            expected = [255, *range(150)]
            assert found == expected[index:] + expected[:index]


def test_mistakes(ade20k: Path) -> None:
    label = ade20k / "annotations" / "validation" / "1.png"
    Image.fromarray(np.full((1, 151), 151, dtype=np.uint8)).save(label)
    with pytest.raises(UserError, match=f"{label}: label 151 is out of range; expected 1..150"):
        prepare_ade20k(ade20k)
    label.unlink()
    with pytest.raises(UserError, match=f"1.jpg: its label {label} is missing"):
        prepare_ade20k(ade20k)
    with pytest.raises(UserError, match="training is not a folder; expected ADEChallengeData2016"):
        prepare_ade20k(ade20k / "images")
