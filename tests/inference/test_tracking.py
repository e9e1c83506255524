from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from ddep.errors import UserError
from ddep.inference import Predictor
from tests.inference.tiny_models import write_run
from tests.inference.tiny_videos import frames, video_predictor


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return video_predictor(tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("length", [1, 7])
def test_tracks_are_those_of_the_models_evaluation(
    length: int, predictor: Predictor, tmp_path: Path
) -> None:
    pictures = frames(length)
    names = []
    for number, picture in enumerate(pictures):
        names.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(picture).save(names[-1])
    record = {
        "file_name": names[0],
        "file_names": names,
        "height": 48,
        "width": 64,
        "length": length,
        "video_id": 1,
    }
    with torch.no_grad():
        [expected] = predictor.model([predictor.map_record(record, 0)])
    found = list(predictor.track(pictures))
    assert [frame.number for frame in found] == list(range(length))
    probabilities = {}
    for frame, picture in zip(found, pictures, strict=True):
        assert np.array_equal(frame.image, picture)
        assert frame.masks.shape == (len(frame.track_ids), 48, 64)
        probabilities |= dict(zip(frame.track_ids, frame.class_probabilities, strict=True))
    assert len(probabilities) >= 3
    pairs = [(p, n, k) for n, of_track in probabilities.items() for k, p in enumerate(of_track)]
    pairs.sort(key=lambda pair: -pair[0])
    assert len(expected["pred_scores"]) >= 5
    for (score, number, label), expected_score, expected_label, masks in zip(
        pairs[: len(expected["pred_scores"])],
        expected["pred_scores"],
        expected["pred_labels"],
        expected["pred_masks"],
        strict=True,
    ):
        assert (score, label) == (pytest.approx(expected_score), expected_label)
        for frame, encoded in zip(found, masks, strict=True):
            mask = coco_mask.decode(encoded).astype(bool)
            if number in frame.track_ids:
                assert np.array_equal(frame.masks[frame.track_ids.index(number)], mask)
            else:
                assert not mask.any()


def test_what_a_frame_says(predictor: Predictor) -> None:
    frame = next(predictor.track(frames(2)))
    best = frame.class_probabilities.max(1)
    assert frame.scores == best.tolist()
    assert frame.labels == frame.class_probabilities.argmax(1).tolist()
    rows, columns = np.nonzero(frame.masks[0])
    expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert frame.boxes.shape == (len(best), 4) and frame.boxes[0].tolist() == expected


def test_objects_have_the_colour_of_their_track_all_the_way(predictor: Predictor) -> None:
    """Only those that score above 0.5 are drawn."""
    first, second = predictor.track(frames(2))
    for frame in (first, second):
        frame.masks = np.zeros((2, 48, 64), dtype=bool)
        frame.masks[0, 4:44, 4:30] = frame.masks[1, 4:44, 34:60] = True
        frame.class_probabilities = np.array([[0.9, 0.0, 0, 0], [0.1, 0.8, 0, 0]])
    first.track_ids, second.track_ids = [3, 7], [7, 3]
    one, other = first.draw(), second.draw()
    scale = one.shape[0] // 48
    left, right = (slice(34 * scale, 42 * scale),) * 2
    left, right = (
        (slice(34 * scale, 42 * scale), slice(6 * scale, 28 * scale)),
        (slice(34 * scale, 42 * scale), slice(36 * scale, 58 * scale)),
    )

    def hue(picture: np.ndarray, place: tuple[slice, slice]) -> np.ndarray:
        colour = np.median(picture[place].reshape(-1, 3), axis=0)
        return colour - colour.mean()

    assert np.abs(hue(one, left) - hue(one, right)).max() > 40
    assert np.abs(hue(one, left) - hue(other, right)).max() < 40
    first.class_probabilities = np.array([[0.4, 0.0, 0, 0], [0.1, 0.5, 0, 0]])
    nothing = first.draw()
    assert np.array_equal(nothing[::scale, ::scale], first.image)


def test_frames_are_read_when_they_are_needed(predictor: Predictor) -> None:
    read: list[int] = []

    def source() -> Iterator[np.ndarray]:
        for number, picture in enumerate(frames(12)):
            read.append(number)
            yield picture

    for frame in predictor.track(source()):
        assert len(read) - frame.number <= 6


def test_a_video_that_breaks_off_gives_the_tracks_of_what_was_read(predictor: Predictor) -> None:
    def damaged() -> Iterator[np.ndarray]:
        yield from frames(5)
        raise UserError("the video is damaged")

    numbers = []
    with pytest.raises(UserError, match="the video is damaged"):
        for frame in predictor.track(damaged()):
            numbers.append(frame.number)
    assert numbers == list(range(5))


def test_frames_of_another_size_end_the_tracks(predictor: Predictor) -> None:
    pictures = [*frames(3), frames(1, (40, 64))[0]]
    numbers = []
    with pytest.raises(UserError, match=r"frame 4 is 64x40, .* 64x48; a video has frames of one"):
        for frame in predictor.track(pictures):
            numbers.append(frame.number)
    assert numbers == [0, 1, 2]


def test_no_frames_are_no_tracks(predictor: Predictor) -> None:
    assert list(predictor.track([])) == []


def test_models_of_videos_take_no_single_images(predictor: Predictor) -> None:
    with pytest.raises(UserError, match=r"VideoMaskFormer takes videos, not images"):
        predictor(frames(1)[0])


def test_whole_videos_of_evaluation_are_clips_in_prediction(tmp_path: Path) -> None:
    predictor = video_predictor(tmp_path / "run", "TEST.CLIP.FRAMES", 0)
    assert predictor.model.whole_videos and predictor.model.clip_tracker.frames == 8
    assert [frame.number for frame in predictor.track(frames(10))] == list(range(10))


def test_objects_of_a_model_of_images_are_linked(tmp_path: Path) -> None:
    predictor = Predictor(
        write_run(
            tmp_path / "run",
            "configs/demo/shapes_panoptic.yaml",
            *("INPUT.MIN_SIZE_TEST", 48, "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", False),
            *("MODEL.MASK_FORMER.TEST.INSTANCE_ON", True, "TEST.DETECTIONS_PER_IMAGE", 5),
            *("TEST.CLIP.NEW_THRESHOLD", 0.2),
        )
    )
    picture = frames(1)[0]
    found = list(predictor.track([picture] * 3))
    objects = predictor(picture).instances
    masks = objects.pred_masks.numpy()
    kept = (objects.scores.numpy() >= 0.2) & masks.any((1, 2))
    assert kept.sum() >= 2
    expected = set(zip(map(bytes, masks[kept]), objects.pred_classes.numpy()[kept], strict=True))
    assert [frame.number for frame in found] == [0, 1, 2]
    for frame in found:  # the same picture three times: the same tracks
        assert sorted(frame.track_ids) == list(range(1, kept.sum() + 1))
        assert set(zip(map(bytes, frame.masks), frame.labels, strict=True)) == expected


def test_classes_of_pixels_cannot_be_followed(tmp_path: Path) -> None:
    words = [f"MODEL.MASK_FORMER.TEST.{key}" for key in ("PANOPTIC_ON", "INSTANCE_ON")]
    predictor = Predictor(
        write_run(
            tmp_path / "run",
            "configs/demo/shapes_panoptic.yaml",
            *(word for key in words for word in (key, False)),
        )
    )
    with pytest.raises(
        UserError, match="predicts no objects .* set .*PANOPTIC_ON or .*INSTANCE_ON"
    ):
        predictor.track(frames(2))
