"""Random resized crops against torchvision's, and the crop of evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from PIL import Image
from torchvision.transforms import v2

from ddep.data.classification_augmentation import (
    CenterCrop,
    build_augmentations,
    build_resized_crop,
)
from ddep.data.image_reader import open_image
from ddep.data.mappers import ClassificationMapper
from ddep.data.seeding import seeded
from ddep.data.window import ResizedCrop, read_window
from ddep.errors import UserError

CROP = "INPUT.RANDOM_RESIZED_CROP"


def photograph(folder: Path, height: int, width: int, name: str = "a.png") -> str:
    """Slow waves, whose crops differ."""
    grid = np.random.default_rng(0).uniform(0, 255, (height // 16 + 2, width // 16 + 2, 3))
    waves = cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(np.clip(waves, 0, 255).astype(np.uint8)).save(folder / name, quality=95)
    return str(folder / name)


def test_crops_are_torchvisions(config: Callable[..., CfgNode], tmp_path: Path) -> None:
    """The same rectangle from the same seed, and nearly the same pixels."""
    path = photograph(tmp_path, 120, 170)
    cfg = config(f"{CROP}.SIZE", 48, f"{CROP}.SCALE", [0.1, 1.0], "INPUT.FORMAT", "RGB")
    draw = build_resized_crop(cfg)
    theirs = v2.RandomResizedCrop(48, (0.1, 1.0), (3 / 4, 4 / 3), antialias=True)
    image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    drawn = set()
    for seed in range(20):
        torch.manual_seed(seed)
        crop = draw((120, 170))
        with open_image(path) as file:
            pixels = read_window(file, crop, "RGB", draft=False)
        torch.manual_seed(seed)
        expected = theirs(image).permute(1, 2, 0).numpy()
        assert np.abs(pixels.astype(int) - expected).max() <= 1, seed
        drawn.add((crop.top, crop.left, crop.height, crop.width))
    assert len(drawn) == 20


def test_a_rectangle_stays_in_place_when_the_decoder_shrinks_the_image(tmp_path: Path) -> None:
    path = photograph(tmp_path, 640, 800, "a.jpg")
    crop = ResizedCrop(100, 300, 320, 240, (640, 800), (40, 40))
    assert crop.whole == (80, 134)
    pair = []
    for draft in (True, False):
        with open_image(path) as file:
            pair.append(read_window(file, crop, "RGB", draft).astype(int))
    assert pair[0].shape == (40, 40, 3)
    assert not np.array_equal(*pair)
    assert np.abs(pair[0] - pair[1]).mean() < 2
    assert pair[1].std() > 10


def test_the_central_crop_is_torchvisions() -> None:
    for size in ((9, 14), (10, 7), (6, 20), (3, 9), (6, 6)):
        image = np.arange(size[0] * size[1] * 3, dtype=np.int32).reshape(*size, 3)
        ours = CenterCrop(6).get_transform(image).apply_image(image)
        sides = [min(6, side) for side in size]
        theirs = v2.functional.center_crop(torch.from_numpy(image).permute(2, 0, 1), sides)
        assert np.array_equal(ours, theirs.permute(1, 2, 0).numpy()), size


def test_evaluation_resizes_the_shorter_side_and_cuts_out_the_middle(
    config: Callable[..., CfgNode], tmp_path: Path
) -> None:
    path = photograph(tmp_path, 100, 150)
    keys = ("INPUT.MIN_SIZE_TEST", 64, "INPUT.FORMAT", "RGB", "INPUT.CENTER_CROP_TEST")
    sample = ClassificationMapper(config(*keys, 56), is_train=False)({"file_name": path})
    resized = Image.open(path).resize((96, 64), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[4:60, 20:76].transpose(2, 0, 1).astype(int)
    assert np.abs(sample["image"].numpy() - expected).max() <= 1
    assert (sample["height"], sample["width"]) == (100, 150)
    assert "classes" not in sample
    whole = ClassificationMapper(config(*keys, 0), is_train=False)({"file_name": path})
    assert whole["image"].shape == (3, 64, 96)


def test_a_sample_depends_only_on_its_seed(config: Callable[..., CfgNode], tmp_path: Path) -> None:
    record = {"file_name": photograph(tmp_path, 100, 150), "classes": [2, 5]}
    mapper = ClassificationMapper(config(f"{CROP}.SIZE", 40), is_train=True)
    samples = []
    for position in (0, 1, 0):
        torch.rand(position + 1)  # must have no effect
        with seeded(7, position):
            samples.append(mapper(record))
    first, other, again = (sample["image"] for sample in samples)
    assert first.shape == (3, 40, 40)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert samples[0]["classes"].tolist() == [2, 5]
    with pytest.raises(UserError, match=r"a\.png has no classes; choose another INPUT\.DATASET"):
        mapper({"file_name": record["file_name"]})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (f"{CROP}.SIZE", 0, r"\.SIZE is 0; expected a whole number of at least 1"),
        (f"{CROP}.SCALE", [0.5, 1.5], r"\.SCALE is \[0\.5, 1\.5\]; expected two numbers above 0"),
        (f"{CROP}.SCALE", [0.0, 1.0], r"\.SCALE is \[0\.0, 1\.0\]"),
        (f"{CROP}.RATIO", [2.0, 1.0], r"\.RATIO is \[2\.0, 1\.0\].*, the lower one first"),
        (f"{CROP}.RATIO", [1.0], r"\.RATIO is \[1\.0\]"),
    ],
)
def test_impossible_crops_are_named(
    config: Callable[..., CfgNode], key: str, value: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_resized_crop(config(key, value))


def test_a_central_crop_larger_than_the_image_is_refused(config: Callable[..., CfgNode]) -> None:
    cfg = config("INPUT.CENTER_CROP_TEST", 224, "INPUT.MIN_SIZE_TEST", 200)
    message = r"INPUT\.CENTER_CROP_TEST is 224; expected 0 to 200, which is INPUT\.MIN_SIZE_TEST"
    with pytest.raises(UserError, match=message):
        build_augmentations(cfg, is_train=False)


def test_training_flips_and_recolours(config: Callable[..., CfgNode]) -> None:
    augmentations = build_augmentations(config("INPUT.COLOR_AUG_SSD", True), is_train=True)
    assert [type(a).__name__ for a in augmentations.augs] == ["RandomColour", "RandomFlip"]
    none = build_augmentations(config("INPUT.RANDOM_FLIP", "none"), is_train=True)
    assert isinstance(none, T.AugmentationList)
    assert none.augs == []
