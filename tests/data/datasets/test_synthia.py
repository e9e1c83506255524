from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from ddep.data.datasets.synthia import prepare_synthia, read_synthia
from ddep.data.image_reader import read_labels
from ddep.errors import UserError
from tests.data.datasets.imitation_streets import stripes, write_png_of_16_bits, write_synthia
from tests.data.datasets.imitation_trees import save

NAME = "synthia_sem_seg_all"


@pytest.fixture
def synthia(root: Path) -> Path:
    return write_synthia(root)


def test_labels(synthia: Path) -> None:
    assert prepare_synthia(synthia, workers=2) == {"all": {"images": 2}}
    first, second = DatasetCatalog.get(NAME)
    assert first["file_name"] == str(synthia / "RGB" / "0000000.png")
    assert second["sem_seg_file_name"] == str(synthia / "labels_19" / "0000001.png")
    found = read_labels(second["sem_seg_file_name"])
    np.testing.assert_array_equal(found, stripes([0, 13, 255, 255]))


def test_splits(synthia: Path) -> None:
    (synthia / "synthia_split_val.txt").write_text("0000001.png\n0000007.png\n")
    found = prepare_synthia(synthia, workers=1)
    assert found == {"all": {"images": 2}, "val": {"images": 1, "not there": 1}}
    [record] = DatasetCatalog.get("synthia_sem_seg_val")
    assert record["file_name"] == str(synthia / "RGB" / "0000001.png")
    with pytest.raises(UserError, match=r"train\.txt cannot be read \(No such file"):
        DatasetCatalog.get("synthia_sem_seg_train")


def test_every_number_has_its_label(tmp_path: Path) -> None:
    numbers = np.zeros((1, 23, 3), dtype=np.uint16)
    numbers[0, :, 0] = np.arange(23)
    numbers[0, :, 1:] = 7
    path = tmp_path / "label.png"
    write_png_of_16_bits(path, numbers)
    labels = read_synthia(path)
    assert labels.dtype == np.uint8
    # void, sky, building, road, sidewalk, fence, vegetation, pole, car, traffic sign, pedestrian,
    # bicycle, motorcycle, parking slot, road works, traffic light, terrain, rider, truck, bus,
    # train, wall, lane marking
    expected = [
        255,
        10,
        2,
        0,
        1,
        4,
        8,
        5,
        13,
        7,
        11,
        18,
        17,
        255,
        255,
        6,
        9,
        12,
        14,
        15,
        16,
        3,
        255,
    ]
    assert labels[0].tolist() == expected


def test_an_interrupted_preparation_is_noticed(synthia: Path) -> None:
    prepare_synthia(synthia, workers=1)
    label = synthia / "GT" / "LABELS" / "0000001.png"
    label.write_bytes(b"no image")
    with pytest.raises(UserError, match=f"label image {label} cannot be read: it is damaged"):
        prepare_synthia(synthia, workers=1)
    with pytest.raises(UserError, match=r"all\.txt cannot be read \(No such file"):
        DatasetCatalog.get(NAME)


def test_mistakes(synthia: Path) -> None:
    with pytest.raises(UserError, match=r"RGB is not a folder; expected SYNTHIA-RAND-CITYSCAPES:"):
        prepare_synthia(synthia / "RGB", workers=1)
    label = synthia / "GT" / "LABELS" / "0000000.png"
    write_png_of_16_bits(label, np.full((40, 40, 3), 23))
    with pytest.raises(UserError, match=f"{label}: label 23 is out of range; expected SYNTHIA's"):
        prepare_synthia(synthia, workers=1)
    write_png_of_16_bits(label, np.full((30, 40, 3), 3))
    with pytest.raises(UserError, match=f"{label}: 40x30 pixels, but its image .* has 40x40"):
        prepare_synthia(synthia, workers=1)
    # The owners' colour images, and labels that were made of one channel.
    for pixels in (np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint16)):
        save(label, pixels)
        with pytest.raises(UserError, match=rf"{label} has pixels of {pixels.dtype} and shape"):
            prepare_synthia(synthia, workers=1)
