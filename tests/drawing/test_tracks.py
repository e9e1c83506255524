"""Objects of videos in pictures: one colour each, in some frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import Metadata
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as coco_mask

from ddep.drawing.contact_sheet import draw_record
from ddep.drawing.tracks import draw_tracks, draw_video_outputs, strip_frames, track_colour

METADATA = Metadata(name="test_tracks", thing_classes=["disc", "star"])
HEIGHT, WIDTH = 300, 400


@pytest.fixture
def file_names(tmp_path: Path) -> list[str]:
    """Six black frames."""
    paths = [tmp_path / f"{frame}.png" for frame in range(6)]
    for path in paths:
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(path)
    return [str(path) for path in paths]


def block(left: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[100:160, left : left + 60] = 1
    return mask


def encoded(mask: np.ndarray) -> dict[str, Any]:
    return coco_mask.encode(np.asfortranarray(mask))


def hue(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The colour of most pixels inside the mask, scaled to a maximum of 1."""
    colours, counts = np.unique(picture[mask > 0], axis=0, return_counts=True)
    colour = colours[counts.argmax()].astype(float)
    return colour / colour.max()


def test_first_and_last_frame_are_shown() -> None:
    assert strip_frames(12) == [0, 4, 7, 11]
    assert strip_frames(3) == [0, 1, 2]
    assert strip_frames(1) == [0]


def test_colours_follow_the_number_of_the_track() -> None:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    masks = [block(50).astype(bool), block(200).astype(bool), np.zeros((HEIGHT, WIDTH), bool)]
    picture = draw_tracks(image, masks, [7, 3, 5], ["a", "b", "c"], METADATA)
    again = draw_tracks(image, masks[::-1], [5, 3, 7], ["c", "b", "a"], METADATA)
    for number, mask in ((7, masks[0]), (3, masks[1])):
        expected = np.array(track_colour(number)) / max(track_colour(number))
        np.testing.assert_allclose(hue(picture, mask), expected, atol=0.05)
        np.testing.assert_allclose(hue(again, mask), expected, atol=0.05)
    assert np.abs(np.subtract(track_colour(7), track_colour(3))).max() > 0.3


def test_predictions_and_truth_of_a_video(file_names: list[str]) -> None:
    """An object that moves to the right, hidden in the last frame; another scores too little."""
    moving = [encoded(block(60 * frame)) for frame in range(5)] + [encoded(0 * block(0))]
    outputs = {
        "pred_scores": [0.9, 0.4],
        "pred_labels": [1, 0],
        "pred_masks": [moving, [encoded(block(0) * 0 + 1)] * 6],
    }
    predicted = draw_video_outputs(file_names, outputs, METADATA)
    annotations = [
        [
            {
                "id": 0,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [60 * frame, 100, 60, 60],
                "bbox_mode": BoxMode.XYWH_ABS,
                "segmentation": moving[frame],
            }
        ]
        for frame in range(5)
    ] + [[]]
    record = {"file_name": file_names[0], "file_names": file_names, "annotations": annotations}
    truth = draw_record(record, METADATA)
    assert predicted.shape == truth.shape == (HEIGHT, 4 * (WIDTH + 4), 3)
    expected = np.array(track_colour(0)) / max(track_colour(0))
    for picture in (predicted, truth):
        for column, frame in enumerate([0, 2, 3, 5]):
            left = column * (WIDTH + 4)
            shown = picture[:, left : left + WIDTH]
            if frame == 5:
                assert shown.max() == 0
            else:
                np.testing.assert_allclose(hue(shown, block(60 * frame)), expected, atol=0.05)
