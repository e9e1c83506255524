from __future__ import annotations

import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as coco_mask

from ddep.data.image_reader import UnreadableImageError
from ddep.data.mappers import build_mapper
from ddep.data.samples import SampleKey, TrainingSamples
from ddep.errors import UserError

HEIGHT, WIDTH, LENGTH = 24, 36, 6
# Of each track: its class, its grey value, its left border, and the frames that show it.
TRACKS = {7: (2, 60, 2, range(6)), 3: (0, 120, 14, range(2, 4)), 5: (2, 240, 26, range(4, 6))}
CROWD = 9


def box_of(left: int, frame: int) -> list[int]:
    return [left, 3 + 2 * frame, 8, 6]


def mask_of(left: int, frame: int) -> np.ndarray:
    x, y, width, height = box_of(left, frame)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + height, x : x + width] = 1
    return mask


def annotation(number: int, left: int, frame: int, **changes) -> dict:
    x, y, width, height = box_of(left, frame)
    polygon = [x, y, x + width, y, x + width, y + height, x, y + height]
    rle = coco_mask.encode(np.asfortranarray(mask_of(left, frame)))
    return {
        "id": number,
        "category_id": TRACKS[number][0],
        "iscrowd": 0,
        "bbox": [x, y, width, height],
        "bbox_mode": BoxMode.XYWH_ABS,
        "segmentation": [polygon] if frame % 2 else rle,
        "area": width * height,
    } | changes


@pytest.fixture
def record(tmp_path: Path) -> dict:
    """A video whose tracks can be told apart by their grey values, and a crowd without pixels."""
    paths, annotations = [], []
    for frame in range(LENGTH):
        image = np.zeros((HEIGHT, WIDTH), np.uint8)
        objects = []
        for number, (_, grey, left, frames) in TRACKS.items():
            if frame in frames:
                image[mask_of(left, frame) == 1] = grey
                objects.append(annotation(number, left, frame))
        if frame == 1:
            objects.append({**objects[0], "id": CROWD, "iscrowd": 1})
        paths.append(str(tmp_path / f"{frame}.png"))
        Image.fromarray(image).save(paths[-1])
        annotations.append(objects)
    return {
        "file_name": paths[0],
        "file_names": paths,
        "height": HEIGHT,
        "width": WIDTH,
        "length": LENGTH,
        "video_id": 11,
        "annotations": annotations,
    }


@pytest.fixture
def video(config):
    def make(*overrides, is_train: bool = True):
        cfg = config(
            *("INPUT.DATASET_MAPPER_NAME", "mask_former_video_instance", "INPUT.FORMAT", "RGB"),
            *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "INPUT.MIN_SIZE_TRAIN", (HEIGHT,)),
            *("INPUT.MIN_SIZE_TEST", HEIGHT, "INPUT.SAMPLING_FRAME_NUM", 3),
            *overrides,
        )
        return build_mapper(cfg, is_train=is_train)

    return make


def seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number)


BY_CLIP = ("INPUT.RANDOM_FLIP", "flip_by_clip", "INPUT.MIN_SIZE_TRAIN_SAMPLING", "choice_by_clip")


def test_a_clip_equals_what_is_computed_from_the_same_random_numbers(record, video) -> None:
    mapper = video(*BY_CLIP)
    flipped = 0
    for number in range(20):
        seed(number)
        sample = mapper(record)
        seed(number)
        reference = random.randrange(LENGTH)
        others = [frame for frame in range(LENGTH) if frame != reference]
        frames = sorted([*np.random.choice(others, 2).tolist(), reference])
        np.random.choice((HEIGHT,))  # the size
        flip = -1 if np.random.uniform() < 0.5 else 1
        flipped += flip < 0
        assert sample["frame_indices"] == frames
        assert sample["file_names"] == [record["file_names"][frame] for frame in frames]
        assert {key: sample[key] for key in ("height", "width", "video_id", "length")} == {
            "height": HEIGHT,
            "width": WIDTH,
            "video_id": 11,
            "length": 3,
        }
        shown = {n for n, track in TRACKS.items() if set(frames) & set(track[3])}
        for frame, image, found in zip(frames, sample["image"], sample["instances"], strict=True):
            pixels = np.asarray(Image.open(record["file_names"][frame]))[:, ::flip]
            assert (image.dtype, image.shape) == (torch.uint8, (3, HEIGHT, WIDTH))
            np.testing.assert_array_equal(image, np.broadcast_to(pixels, image.shape))
            assert (found.gt_ids.dtype, found.gt_classes.dtype) == (torch.int64,) * 2
            assert (found.gt_masks.dtype, len(found)) == (torch.bool, len(shown))
            ids = sample["instances"][0].gt_ids.tolist()
            for row, (class_id, track) in enumerate(
                zip(found.gt_classes.tolist(), found.gt_ids.tolist(), strict=True)
            ):
                every = {int(other.gt_ids[row]) for other in sample["instances"]} - {-1}
                (named,) = every
                expected_class, grey, _, visible = TRACKS[named]
                assert class_id == expected_class
                assert track == (named if frame in visible else -1)
                np.testing.assert_array_equal(found.gt_masks[row], pixels == grey)
            assert len(ids) == len(shown)
    assert 4 < flipped < 16


def test_values_that_are_not_by_clip_are_drawn_for_each_frame(record, video) -> None:
    sizes = ("INPUT.MIN_SIZE_TRAIN", (24, 48), "INPUT.MIN_SIZE_TRAIN_SAMPLING")
    for sampling, alike in (("choice", False), ("choice_by_clip", True)):
        mapper = video(*sizes, sampling)
        heights = []
        for number in range(8):
            seed(number)
            sample = mapper(record)
            heights.append({image.shape[1] for image in sample["image"]})
            for image, found in zip(sample["image"], sample["instances"], strict=True):
                assert found.gt_masks.shape[1:] == image.shape[1:] == found.image_size
        assert set.union(*heights) == {24, 48}
        assert all(len(found) == 1 for found in heights) is alike


def test_all_frames_have_the_same_crop(record, video) -> None:
    crop = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute_range")
    mapper = video(*BY_CLIP, *crop, "INPUT.CROP.SIZE", (10, 20), "INPUT.MIN_SIZE_TRAIN", (10,))
    for path in record["file_names"]:  # a still video shows how it was cropped
        Path(path).write_bytes(Path(record["file_names"][5]).read_bytes())
    shapes = set()
    for number in range(8):
        seed(number)
        images = mapper(record)["image"]
        assert all(torch.equal(image, images[0]) for image in images)
        shapes.add(images[0].shape)
    assert len(shapes) > 2


def test_objects_outside_of_the_crop_are_left_out(record, video) -> None:
    crop = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (24, 12))
    mapper = video(*BY_CLIP, *crop, "INPUT.MIN_SIZE_TRAIN", (12,), "INPUT.SAMPLING_FRAME_NUM", 2)
    numbers = set()
    for number in range(20):
        seed(number)
        found = mapper(record)["instances"]
        visible = torch.stack([frame.gt_masks.flatten(1).any(1) for frame in found])
        present = torch.stack([frame.gt_ids for frame in found]) >= 0
        assert torch.equal(visible, present)
        assert visible.any(0).all()
        numbers.add(len(found[0]))
    assert 0 in numbers and 1 in numbers


def test_a_video_of_one_frame(record, video) -> None:
    record = {
        **record,
        "file_names": record["file_names"][:1],
        "length": 1,
        "annotations": record["annotations"][:1],
    }
    sample = video()(record)
    assert sample["frame_indices"] == [0, 0, 0]
    assert len(sample["image"]) == len(sample["instances"]) == 3
    sample = video("INPUT.SAMPLING_FRAME_NUM", 1)(record)
    assert len(sample["image"]) == 1


def test_models_draw_from_a_seed_of_the_sample(record, video) -> None:
    """The same at the same place of the stream of samples, and another elsewhere."""
    samples = TrainingSamples([[record]], video(), max_unreadable=1)
    keys = [SampleKey(seed=0, position=position, index=0) for position in (0, 1, 0)]
    seeds = [samples[key].content["seed"] for key in keys]
    assert seeds[0] == seeds[2] != seeds[1]


def test_evaluation_has_all_frames(record, video) -> None:
    without = {key: value for key, value in record.items() if key != "annotations"}
    sample = video("INPUT.MIN_SIZE_TEST", 12, is_train=False)(without)
    assert isinstance(sample["image"], list)
    assert "instances" not in sample
    assert (sample["length"], sample["frame_indices"]) == (LENGTH, list(range(LENGTH)))
    assert sample["file_names"] == record["file_names"]
    for path, image in zip(record["file_names"], sample["image"], strict=True):
        expected = Image.open(path).convert("RGB").resize((18, 12), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image.permute(1, 2, 0), np.asarray(expected))


def test_frames_of_long_videos_are_read_on_demand(record, video) -> None:
    whole = video(is_train=False)(record)["image"]
    mapper = video("TEST.CLIP.FRAMES", 2, is_train=False)
    frames = pickle.loads(pickle.dumps(mapper(record)))["image"]
    assert len(frames) == LENGTH
    Path(record["file_names"][3]).unlink()
    for index in (0, 1, 2, 4, 5):
        assert torch.equal(frames[index], whole[index])
    with pytest.raises(UnreadableImageError, match=r"3\.png cannot be read: No such file"):
        frames[2:5]


def test_a_video_with_a_missing_frame_is_skipped(record, video, tmp_path) -> None:
    lost = str(tmp_path / "lost.png")
    broken = {**record, "file_name": lost, "file_names": [lost] * LENGTH}
    samples = TrainingSamples([[broken, record]], video(), max_unreadable=1)
    sample = samples[SampleKey(seed=0, position=0, index=0)]
    assert sample.content["file_name"] == record["file_name"]
    assert list(sample.unreadable) == [lost]
    assert sample.unreadable[lost].startswith(f"image {lost} cannot be read")


def test_frames_of_different_sizes(record, video) -> None:
    Image.new("L", (40, 20)).save(record["file_names"][0])
    expected = r"0\.png is 40x20, but its annotation says 36x24; correct the annotation"
    with pytest.raises(UserError, match=expected):
        video(is_train=False)(record)
    mapper = video("INPUT.SAMPLING_FRAME_NUM", 20)
    with pytest.raises(UserError, match=expected):
        mapper(record)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category_id": 3}, r"class.* 3.*MODEL\.SEM_SEG_HEAD\.NUM_CLASSES"),
        ({"segmentation": {"size": [9, 9], "counts": [81]}}, r"\(height, width\) \[9, 9\]"),
        ({"segmentation": [[1, 2, 3]]}, "cannot be turned into a mask: a polygon has 3 numbers"),
        ({"id": 3}, r"has the tracks \[3, 3\]; expected each of them once in a frame"),
    ],
)
def test_wrong_annotations(record, video, changes, message) -> None:
    record = {**record, "annotations": [*record["annotations"]]}
    record["annotations"][3] = [annotation(7, 2, 3, **changes), annotation(3, 14, 3)]
    with pytest.raises(UserError, match=message) as raised:
        video("INPUT.SAMPLING_FRAME_NUM", 30)(record)
    assert "3.png" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_records_that_do_not_fit(record, video) -> None:
    image = {"file_name": record["file_name"], "annotations": []}
    with pytest.raises(UserError, match=r"image .*0\.png is no video; choose another"):
        video()(image)
    del record["annotations"]
    with pytest.raises(UserError, match=r"the video of .*0\.png has no annotations; choose"):
        video()(record)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SAMPLING_FRAME_NUM", 0, "is 0; expected at least 1"),
        ("SAMPLING_FRAME_RANGE", -1, "is -1; expected at least 0"),
        ("RANDOM_FLIP", "both", "is 'both'; expected one of horizontal, vertical, none, flip_by"),
        ("MIN_SIZE_TRAIN_SAMPLING", "range_by_clip", r"is \(24,\); .* range needs two values"),
        ("AUGMENTATIONS", ["blur"], "has 'blur'; expected some of brightness, contrast"),
    ],
)
def test_impossible_keys(video, key, value, message) -> None:
    with pytest.raises(UserError, match=message):
        video(f"INPUT.{key}", value)
