from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from torchvision.transforms.v2 import functional as F

from ddep.data import augmentation, classification_augmentation
from ddep.data.augmentation import LabelledImage
from ddep.data.colour_augmentation import RandomColour, build_recolouring
from ddep.errors import UserError

FILL = -1


def places(height: int, width: int) -> np.ndarray:
    """(H, W) int32: each pixel's own index, too large for 8 bits."""
    return np.arange(height * width, dtype=np.int32).reshape(height, width)


def test_colour_is_the_same_in_both_channel_orders():
    image = np.random.default_rng(3).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    changed = 0
    for seed in range(50):
        results = []
        for order, pixels in (("RGB", image), ("BGR", image[..., ::-1])):
            random.seed(seed)
            augmented = LabelledImage(pixels, places(9, 8), FILL)
            RandomColour(order)(augmented)
            assert np.array_equal(augmented.sem_seg, places(9, 8))
            results.append(augmented.image)
        assert results[0].dtype == np.uint8
        assert np.array_equal(results[0], results[1][..., ::-1])
        changed += not np.array_equal(results[0], image)
    assert changed > 40


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_colour_is_detectron2s(order):
    image = np.random.default_rng(4).integers(0, 256, (19, 18, 3), dtype=np.uint8)
    transform = RandomColour(order).get_transform(image)
    theirs = ColorAugSSDTransform(order)
    for seed in range(60):
        results = []
        for recolour in (transform, theirs):
            random.seed(seed)
            results.append(recolour.apply_image(image.copy()))
            results.append(random.random())
        assert np.array_equal(results[0], results[2]) and results[1] == results[3]


def test_colour_ranges():
    """On grey only brightness (by 32) and contrast (by half) act: 0.5 * 96 to 1.5 * 160."""
    random.seed(0)
    grey = np.full((2, 2, 3), 128, np.uint8)
    transform = RandomColour("RGB").get_transform(grey)
    values = [int(transform.apply_image(grey)[0, 0, 0]) for _ in range(600)]
    assert 47 <= min(values) < 60 and 210 < max(values) <= 240


def test_nothing_changes_colours_by_default(config):
    assert build_recolouring(config(), "RGB") == []


def photometric(config, *overrides) -> T.Augmentation:
    [augmentation] = build_recolouring(config(*overrides), "BGR")
    return augmentation


def test_jitter_and_blur_leave_labels_alone(config):
    image = np.random.default_rng(6).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    given = image.copy()
    augmented = LabelledImage(given, places(20, 24), FILL)
    enabled = ("INPUT.COLOR_JITTER.ENABLED", True, "INPUT.GAUSSIAN_BLUR.ENABLED", True)
    transform = photometric(config, *enabled)(augmented)
    assert np.array_equal(augmented.sem_seg, places(20, 24))
    assert np.array_equal(given, image)
    assert augmented.image.shape == image.shape and augmented.image.dtype == np.uint8
    assert not np.array_equal(augmented.image, image)
    corners = np.array([[0.0, 0.0], [24.0, 20.0]])
    assert np.array_equal(transform.apply_coords(corners.copy()), corners)


def test_jitter_alone_changes_half_of_the_images(config):
    image = np.random.default_rng(7).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    augmentation = photometric(config, "INPUT.COLOR_JITTER.ENABLED", True)
    torch.manual_seed(0)
    results = [augmentation.get_transform(image).apply_image(image) for _ in range(200)]
    changed = sum(not np.array_equal(result, image) for result in results)
    assert 75 < changed < 125  # 100 is expected, with a standard deviation of 7


def test_blur_alone_is_torchvisions(config):
    image = np.random.default_rng(8).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    overrides = ("INPUT.GAUSSIAN_BLUR.ENABLED", True, "INPUT.GAUSSIAN_BLUR.SIGMA", [1.0, 1.0])
    blurred = photometric(config, *overrides).get_transform(image).apply_image(image)
    planes = torch.from_numpy(image).permute(2, 0, 1)
    expected = F.gaussian_blur(planes, [9, 9], [1.0, 1.0]).permute(1, 2, 0).numpy()
    assert np.array_equal(blurred, expected)


def test_every_task_recolours_the_same_way(config):
    enabled = ("INPUT.COLOR_AUG_SSD", True, "INPUT.COLOR_JITTER.ENABLED", True)
    for mapper in ("mask_former_semantic", "coco_panoptic_lsj", "detr_panoptic", "ddep_denoising"):
        cfg = config(*enabled, "INPUT.DATASET_MAPPER_NAME", mapper)
        names = [type(a).__name__ for a in augmentation.build_augmentations(cfg, True).augs]
        first = names.index("RandomColour")
        assert names[first + 1] == "RandomPhotometric"
    augmentations = classification_augmentation.build_augmentations(config(*enabled), True)
    names = [type(a).__name__ for a in augmentations.augs]
    assert names == ["RandomColour", "RandomPhotometric", "RandomFlip"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("COLOR_JITTER.STRENGTH", [0.4, 0.4, 0.4], r"is \[0.4, 0.4, 0.4\]; expected four numbers"),
        ("COLOR_JITTER.PROBABILITY", 1.5, "is 1.5; expected a number from 0 to 1"),
        ("GAUSSIAN_BLUR.SIGMA", [2.0, 1.0], r"is \[2.0, 1.0\]; expected two numbers above 0"),
        ("GAUSSIAN_BLUR.PROBABILITY", -1.0, "is -1.0; expected a number from 0 to 1"),
    ],
)
def test_values_that_cannot_be_are_named(config, key, value, message):
    cfg = config(f"INPUT.{key}", value)
    assert build_recolouring(cfg, "RGB") == []
    cfg.merge_from_list([f"INPUT.{key.split('.')[0]}.ENABLED", True])
    with pytest.raises(UserError, match=rf"^INPUT\.{key} {message}"):
        build_recolouring(cfg, "RGB")
