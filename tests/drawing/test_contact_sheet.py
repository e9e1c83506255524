from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import Metadata
from detectron2.structures import BoxMode
from PIL import Image

from ddep.data.datasets.panoptic import encode_panoptic
from ddep.drawing.contact_sheet import draw_contact_sheet, draw_record

HEIGHT, WIDTH = 400, 600
RED, BLUE = [255, 0, 0], [0, 0, 255]
METADATA = Metadata(
    name="test_contact_sheet",
    stuff_classes=["left", "right"],
    stuff_colors=[RED, BLUE],
    thing_classes=["thing"],
    thing_colors=[BLUE],
    ignore_label=255,
)


@pytest.fixture
def record(tmp_path) -> dict:
    """A grey image, all of it labelled: left and right of the middle."""
    right = np.arange(WIDTH).repeat(HEIGHT).reshape(WIDTH, HEIGHT).T >= WIDTH // 2
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 128, np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(right.astype(np.uint8)).save(tmp_path / "labels.png")
    Image.fromarray(encode_panoptic(1 + 700 * right)).save(tmp_path / "panoptic.png")
    segments = [
        {"id": 1, "category_id": 0, "isthing": False},
        {"id": 701, "category_id": 1, "isthing": False},
        {"id": 9, "category_id": 1, "isthing": False},
    ]
    polygon = [300, 0, 600, 0, 600, 400, 300, 400]
    thing = {"category_id": 0, "bbox": [300, 0, 300, 400], "bbox_mode": BoxMode.XYWH_ABS}
    return {
        "file_name": str(tmp_path / "grey.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "pan_seg_file_name": str(tmp_path / "panoptic.png"),
        "segments_info": segments,
        "annotations": [{**thing, "segmentation": [polygon], "iscrowd": 0}],
    }


def test_classes_of_the_whole_image_stand_beside_it(record: dict) -> None:
    metadata = Metadata(classes=["cat", "dog"])
    one, both = (
        draw_record({**only(record), "classes": classes}, metadata) for classes in ([1], [0, 1])
    )
    assert one.shape == both.shape
    assert (one[60:180, :240] == 128).all()
    assert np.array_equal(one[:, :240], both[:, :240])
    assert not np.array_equal(one, both)


def only(record: dict, *keys: str) -> dict:
    return {key: record[key] for key in ("file_name", *keys)}


def sides(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much bluer than red the left and the right edge are, away from names."""
    blue_over_red = picture[..., 2].astype(int) - picture[..., 0]
    return blue_over_red[10:60, 5:40].mean(), blue_over_red[10:60, -40:-5].mean()


@pytest.mark.parametrize(
    "keys", [("pan_seg_file_name", "segments_info"), ("sem_seg_file_name",), ("annotations",)]
)
def test_labels_lie_where_they_belong(record: dict, keys: tuple[str, ...]) -> None:
    picture = draw_record(only(record, *keys), METADATA)
    assert picture.shape == (320, 480, 3) and picture.dtype == np.uint8
    left, right = sides(picture)
    assert right > 60
    assert left < -60 if keys != ("annotations",) else abs(left) < 5


def test_an_image_without_labels_is_shown_as_it_is(record: dict) -> None:
    assert (draw_record(only(record), METADATA) == 128).all()


def test_without_masks_boxes_are_filled(record: dict) -> None:
    """A box may reach beyond the image."""
    box = [300, -50, 350, 500]
    boxed = {"id": 4, "category_id": 0, "bbox": box, "bbox_mode": BoxMode.XYWH_ABS}
    left, right = sides(draw_record({**only(record), "annotations": [boxed]}, METADATA))
    assert right > 60 and abs(left) < 5
    video = {"file_names": [record["file_name"]], "annotations": [[boxed]]}
    picture = draw_record({**only(record), **video}, METADATA)
    assert (picture[:, :200] == 128).all()
    assert (picture[100:250, 250:] != 128).any(axis=-1).mean() > 0.9


def test_a_sheet_has_four_pictures_a_row_with_their_names(record: dict) -> None:
    plain = only(record)
    one, five = draw_contact_sheet([plain], METADATA), draw_contact_sheet([plain] * 5, METADATA)
    assert one.shape == (340, 488, 3) and five.shape == (680, 4 * 488, 3)
    for column in range(4):
        left = column * 488
        assert (five[:320, left : left + 480] == 128).all()
        assert (five[320:340, left : left + 100] < 60).any()  # its name
    assert (five[340:660, :480] == 128).all()
    assert (five[340:, 488:] == 255).all()
