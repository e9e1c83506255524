"""Mappers of target images: the geometry of training images, without their labels."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from PIL import Image

from ddep.data.image_reader import UnreadableImageError
from ddep.data.mappers import build_mapper, build_target_mapper
from ddep.data.mappers.target import StrongPairTargetMapper
from ddep.data.record import Record
from ddep.data.seeding import seeded
from ddep.errors import UserError

Config = Callable[..., CfgNode]

PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
CROP = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", [10, 12])
SIZE = ("INPUT.MIN_SIZE_TRAIN", (24,), "INPUT.FORMAT", "RGB")


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """An image and labels that cannot be read."""
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    (tmp_path / "labels.png").write_text("no image")
    names = {"file_name": "image.png", "sem_seg_file_name": "labels.png"}
    return {key: str(tmp_path / name) for key, name in names.items()} | {"image_id": 4}


def test_sample(config: Config, record: Record) -> None:
    sample = build_target_mapper(config(*SIZE, "INPUT.RANDOM_FLIP", "none"), "target")(record)
    assert torch.equal(sample.pop("image"), torch.from_numpy(PIXELS.transpose(2, 0, 1)))
    assert 0 <= sample.pop("seed") < 2**31
    assert sample == {
        "file_name": record["file_name"],
        "image_id": 4,
        "height": 24,
        "width": 32,
        "is_target": True,
    }


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_geometry_is_that_of_labelled_images(
    config: Config, record: Record, tmp_path: Path, order: str
) -> None:
    Image.new("L", (32, 24)).save(tmp_path / "labels.png")
    cfg = config(*SIZE, *CROP, "INPUT.FORMAT", order)
    labelled, target = build_mapper(cfg, is_train=True), build_target_mapper(cfg, "target")
    seen = set()
    for position in range(20):
        with seeded(7, position):
            expected = labelled(record)["image"]
        with seeded(7, position):
            image = target(record)["image"]
        assert image.shape == (3, 10, 12)
        assert torch.equal(image, expected)
        seen.add(image.numpy().tobytes())
    assert len(seen) > 15


def test_sizes_are_those_of_labelled_images(config: Config, record: Record) -> None:
    target = build_target_mapper(config(*SIZE, "INPUT.MIN_SIZE_TRAIN", (12, 48)), "target")
    shapes = {target(record)["image"].shape for _ in range(20)}
    assert shapes == {(3, 12, 16), (3, 48, 64)}


def test_crops_that_need_labels_are_plain_crops(config: Config, record: Record) -> None:
    cfg = config(*SIZE, *CROP, "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 0.75)
    assert build_target_mapper(cfg, "target")(record)["image"].shape == (3, 10, 12)


@pytest.mark.parametrize(
    "keys",
    [
        ("INPUT.SIZE_DIVISIBILITY", 64),
        (
            *("INPUT.DATASET_MAPPER_NAME", "coco_panoptic_lsj", "INPUT.IMAGE_SIZE", 40),
            *("INPUT.MIN_SCALE", 0.8, "INPUT.MAX_SCALE", 0.8),
        ),
    ],
    ids=["resize_and_crop", "large_scale_jitter"],
)
def test_images_are_not_padded(config: Config, record: Record, keys: tuple[object, ...]) -> None:
    cfg = config(*SIZE, "INPUT.RANDOM_FLIP", "none", *keys)
    image = build_target_mapper(cfg, "target")(record)["image"]
    assert torch.equal(image, torch.from_numpy(PIXELS.transpose(2, 0, 1)))


def test_unreadable_image(config: Config, record: Record) -> None:
    record["file_name"] = record["sem_seg_file_name"]
    with pytest.raises(UnreadableImageError, match="not an image that Pillow knows"):
        build_target_mapper(config(*SIZE), "target")(record)


def test_strong_views_are_changes_of_the_weak_one(config: Config, record: Record) -> None:
    weak = build_target_mapper(config(*SIZE, *CROP), "target")

    def photometric(image: torch.Tensor) -> torch.Tensor:
        return image // 2 + torch.randint(100, (), dtype=torch.uint8)

    mapper = StrongPairTargetMapper(
        geometry=weak.geometry, image_format="RGB", photometric=photometric
    )
    with seeded(3, 5):
        sample = mapper(record)
    with seeded(3, 5):
        expected = weak(record)
    assert sample["seed"] == expected["seed"]
    assert torch.equal(sample["image"], expected["image"])
    first, second = (view.int() - sample["image"].int() // 2 for view in sample["strong"])
    assert (first == first[0, 0, 0]).all()
    assert (second == second[0, 0, 0]).all()
    assert first[0, 0, 0] != second[0, 0, 0]


@pytest.mark.parametrize(("name", "count"), [("target_strong", 1), ("target_strong_pair", 2)])
def test_strong_views_follow_the_config(
    config: Config, record: Record, name: str, count: int
) -> None:
    probabilities = ("JITTER_PROBABILITY", "GRAY_PROBABILITY", "BLUR_PROBABILITY")
    off = [item for key in probabilities for item in (f"MODEL.ADAPTATION.STRONG.{key}", 0.0)]
    sample = build_target_mapper(config(*SIZE, *CROP, *off), name)(record)
    assert len(sample["strong"]) == count
    assert all(torch.equal(view, sample["image"]) for view in sample["strong"])
    off[3] = 1.0
    sample = build_target_mapper(config(*SIZE, *CROP, *off), name)(record)
    for view in sample["strong"]:
        assert torch.equal(view[0], view[1])
        assert view.shape == sample["image"].shape


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("COLOR_JITTER", [0.5, 0.5], "four numbers"),
        ("BLUR_SIGMA", [2.0, 1.0], "the lower one first"),
        ("GRAY_PROBABILITY", 1.5, "a number from 0 to 1"),
    ],
)
def test_impossible_strong_views(config: Config, key: str, value: object, expected: str) -> None:
    cfg = config(*SIZE, f"MODEL.ADAPTATION.STRONG.{key}", value)
    with pytest.raises(UserError, match=rf"STRONG\.{key} is .*{expected}"):
        build_target_mapper(cfg, "target_strong")


@pytest.mark.parametrize("name", ["target", "target_strong", "target_strong_pair", "target_crops"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_mappers_can_be_sent_to_processes(
    config: Config, record: Record, name: str, order: str
) -> None:
    mapper = build_target_mapper(config(*SIZE, *CROP, "INPUT.FORMAT", order), name)
    samples = []
    for own in (mapper, pickle.loads(pickle.dumps(mapper))):
        with seeded(1, 2):
            samples.append(own(record))
    first, second = samples
    assert first.keys() == second.keys()
    assert torch.equal(first["image"], second["image"])
    for one, other in zip(first.get("strong", []), second.get("strong", []), strict=True):
        assert torch.equal(one, other)
