from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import transforms as T
from PIL import Image

from ddep.data.augmentation import LabelledImage, MixedCrop
from ddep.data.class_centre import CropAtClass, draw_class_centre
from ddep.data.mappers import build_mapper

IGNORE = 255


def test_the_centre_is_the_centroid_of_the_pixels_in_a_tile():
    labels = np.zeros((25, 60), dtype=np.int32)
    labels[3, 5], labels[5, 6], labels[5, 8] = 7, 7, 7  # in the first tile of 20 x 20
    labels[22, 25] = 7  # in the second: what is left of the rows belongs to it
    labels[1, 59] = 3
    np.random.seed(0)
    found = sorted({tuple(draw_class_centre(labels, 7, 20)) for _ in range(40)})
    first = (5 + 6 + 8) / 3 + 0.5, (3 + 5 + 5) / 3 + 0.5
    assert found == [pytest.approx(first), (25.5, 22.5)]
    assert draw_class_centre(labels, 3, 20).tolist() == [59.5, 1.5]
    assert draw_class_centre(labels, 4, 20) is None


def test_tiles_that_show_the_class_are_equally_likely():
    labels = np.zeros((10, 30), dtype=np.uint8)
    labels[:, :10] = 1
    labels[0, 25] = 1
    np.random.seed(1)
    drawn = [draw_class_centre(labels, 1, 10)[0] for _ in range(400)]
    assert 160 < drawn.count(5.0) < 240 and drawn.count(5.0) + drawn.count(25.5) == 400


def test_an_image_smaller_than_a_tile_is_one():
    labels = np.zeros((4, 6), dtype=np.uint8)
    labels[1, [0, 5]] = 1
    assert draw_class_centre(labels, 1, 1024).tolist() == [3.0, 1.5]


def starts(x: float, y: float, crop: T.Augmentation, size: tuple[int, int]) -> set[tuple[int, int]]:
    image, labels = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    drawn = [crop.get_transform(image, labels, np.array([x, y])) for _ in range(600)]
    assert {(crop.h, crop.w) for crop in drawn} == {(4, 6)}
    return {(crop.y0, crop.x0) for crop in drawn}


@pytest.mark.parametrize(
    "crop",
    [T.RandomCrop("absolute", (4, 6)), MixedCrop("absolute", (4, 6), 0.75, IGNORE)],
    ids=["plain", "mixed"],
)
def test_every_crop_that_shows_the_place_is_drawn(crop):
    np.random.seed(2)
    crop = CropAtClass(crop)
    everywhere = {(y, x) for y in range(3, 7) for x in range(2, 8)}
    assert starts(7.9, 6.0, crop, (20, 30)) == everywhere
    assert starts(0.2, 19.7, crop, (20, 30)) == {(16, 0)}
    assert starts(28.4, 0.5, crop, (20, 30)) == {(0, x) for x in (23, 24)}


def test_without_a_class_the_crop_is_the_other_ones():
    image = np.zeros((20, 30, 3), np.uint8)
    for seed in range(5):
        crops = []
        for crop in (
            T.RandomCrop("absolute", (4, 6)),
            CropAtClass(T.RandomCrop("absolute", (4, 6))),
        ):
            np.random.seed(seed)
            augmented = LabelledImage(image, np.zeros((20, 30), np.uint8), IGNORE)
            crops.append(crop(augmented))
        assert (crops[0].y0, crops[0].x0) == (crops[1].y0, crops[1].x0)


def test_crops_of_a_resized_image_show_the_class(config, tmp_path):
    labels = np.zeros((80, 160), dtype=np.uint8)
    labels[62:65, 130:133] = 3
    Image.fromarray(labels).save(tmp_path / "labels.png")
    Image.fromarray(50 * labels).save(tmp_path / "image.png")
    record = {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
    }
    mapper = build_mapper(
        config(
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 4, "DATALOADER.CLASS_UNIFORM.SHARE", 0.5),
            *("INPUT.MIN_SIZE_TRAIN", (80, 200), "INPUT.CROP.ENABLED", True),
            *("INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (24, 24)),
        ),
        is_train=True,
    )
    np.random.seed(3)
    with_class = [mapper({**record, "class_to_show": 3})["sem_seg"] for _ in range(25)]
    assert all(3 in labels for labels in with_class)
    assert sum(3 in mapper(record)["sem_seg"] for _ in range(25)) < 15
