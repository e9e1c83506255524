from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image

from ddep.drawing.segments import MIN_SIDE, class_metadata, draw_outputs, draw_panoptic
from ddep.errors import UserError
from ddep.tasks import load_config

CONFIG = "configs/demo/shapes_panoptic.yaml"
SKY, GRASS = 4, 6


@pytest.fixture
def image(tmp_path) -> str:
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((40, 60, 3), 128, dtype=np.uint8)).save(path)
    return str(path)


def mean_colours(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour of the left and the right third, away from names, which stand in the middle."""
    strip = picture[: len(picture) // 6].astype(float)
    third = strip.shape[1] // 3
    return strip[:, :third].mean((0, 1)), strip[:, -third:].mean((0, 1))


@pytest.mark.parametrize("kind", ["panoptic_seg", "sem_seg"])
def test_segments_are_drawn_in_their_colours_where_they_are(image: str, kind: str) -> None:
    right = torch.arange(60).expand(40, 60) >= 30
    if kind == "panoptic_seg":
        segments = [
            {"id": 1, "category_id": SKY, "isthing": False},
            {"id": 2, "category_id": GRASS, "isthing": False},
        ]
        outputs = {"panoptic_seg": (1 + right.int(), segments)}
    else:
        scores = torch.zeros(8, 40, 60)
        scores[SKY][~right] = 1
        scores[GRASS][right] = 1
        outputs = {"sem_seg": scores}
    metadata = class_metadata(load_config(CONFIG))
    picture = draw_outputs(image, outputs, metadata)
    scale = -(-MIN_SIDE // 40)
    assert picture.shape == (40 * scale, 60 * scale, 3)
    assert picture.dtype == np.uint8
    left, right = mean_colours(picture)
    colours = np.array(MetadataCatalog.get("shapes_panoptic_val").stuff_colors, dtype=float)
    # Half transparent over grey: from side to side, colours change as those of the classes do.
    found, expected = right - left, colours[GRASS] - colours[SKY]
    cosine = np.dot(found, expected) / np.linalg.norm(found) / np.linalg.norm(expected)
    assert cosine > 0.95


def test_colours_are_the_same_in_every_picture_and_tell_things_apart() -> None:
    """Whatever the state of the random numbers, and whatever else is there."""
    metadata = class_metadata(load_config(CONFIG))
    grey = np.full((400, 600, 3), 128, dtype=np.uint8)
    ids = (torch.arange(600) // 200 + 1).expand(400, 600)  # three columns
    pictures = []
    for category in (1, 2):
        segments = [
            {"id": 1, "category_id": 0, "isthing": True},
            {"id": 2, "category_id": 0, "isthing": True},
            {"id": 3, "category_id": category, "isthing": True},
        ]
        np.random.seed(category)
        pictures.append(draw_panoptic(grey, ids, segments, metadata)[:80].astype(int))
    columns = [[picture[:, i : i + 100] for i in (50, 250, 450)] for picture in pictures]
    assert np.array_equal(columns[0][0], columns[1][0])
    assert np.array_equal(columns[0][1], columns[1][1])
    assert not np.array_equal(columns[0][2], columns[1][2])
    one, other = (column.mean((0, 1)) for column in columns[0][:2])
    assert np.abs(one - other).max() > 5


@pytest.mark.parametrize("names", ["()", "('nowhere',)"])
def test_classes_must_be_known(names: str) -> None:
    cfg = load_config(CONFIG, ["DATASETS.TEST", names, "DATASETS.TRAIN", "()"])
    with pytest.raises(UserError, match=r"DATASETS.TEST and DATASETS.TRAIN are (empty|nowhere);"):
        class_metadata(cfg)
