from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st

from ddep.data.augmentation import (
    LabelledImage,
    MixedCrop,
    PadToSquare,
    build_augmentations,
    transform_labels,
)
from ddep.errors import UserError

IGNORE = 255
FILL = -1


def ramps(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 with x in red and y in green, which linear interpolation keeps."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)


def places(height: int, width: int) -> np.ndarray:
    """(H, W) int32: each pixel's own index, too large for 8 bits."""
    return np.arange(height * width, dtype=np.int32).reshape(height, width)


def assert_aligned(image: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> None:
    """Each pixel's label and colour come from the same place."""
    assert image.shape[:2] == labels.shape
    inside = labels != FILL
    assert inside.any()
    y, x = np.divmod(labels, size[1])
    # Interpolation is one-sided at the image's borders.
    inner = inside & (x >= 12) & (x < size[1] - 12) & (y >= 12) & (y < size[0] - 12)
    for source, ramp in ((x, image[..., 0]), (y, image[..., 1])):
        error = ramp.astype(float) - source
        # Half a pixel between the nearest pixel and the exact place, half a grey level, a little.
        assert np.abs(error[inner]).max(initial=0) <= 1.05
    assert (image[~inside] == 128).all()


AUGMENTATIONS = {
    "resize and flip": ["INPUT.MIN_SIZE_TRAIN", (40, 93, 150, 420)],
    "vertical flip": ["INPUT.RANDOM_FLIP", "vertical", "INPUT.MIN_SIZE_TRAIN", (40, 300)],
    "crop": [
        *("INPUT.MIN_SIZE_TRAIN", (70, 131, 300), "INPUT.CROP.ENABLED", True),
        *("INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (90, 110)),
    ],
    "relative crop, pad": [
        *("INPUT.MIN_SIZE_TRAIN", (90,), "INPUT.CROP.ENABLED", True),
        *("INPUT.CROP.TYPE", "relative_range", "INPUT.CROP.SIZE", (0.5, 0.5)),
        *("INPUT.SIZE_DIVISIBILITY", 160),
    ],
    "crop between two resizings": [
        *("INPUT.DATASET_MAPPER_NAME", "detr_panoptic", "INPUT.MIN_SIZE_TRAIN", (60, 93)),
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute_range"),
        *("INPUT.CROP.SIZE", (384, 600)),
    ],
    "large-scale jitter": [
        *("INPUT.DATASET_MAPPER_NAME", "coco_panoptic_lsj", "INPUT.IMAGE_SIZE", 160),
        *("INPUT.MIN_SCALE", 0.3, "INPUT.MAX_SCALE", 3.0),
    ],
}


@pytest.mark.parametrize("overrides", AUGMENTATIONS.values(), ids=AUGMENTATIONS.keys())
def test_labels_stay_with_their_pixels(config, overrides):
    augmentations = build_augmentations(config(*overrides), is_train=True)

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32 - 1), st.integers(60, 250), st.integers(60, 250))
    def check(seed, height, width):
        np.random.seed(seed)
        image, labels = ramps(height, width), places(height, width)
        augmented = LabelledImage(image, labels, FILL)
        transforms = augmentations(augmented)
        assert augmented.sem_seg.dtype == np.int32
        assert_aligned(augmented.image, augmented.sem_seg, (height, width))
        again = transform_labels(transforms, labels, FILL)
        assert np.array_equal(again, augmented.sem_seg)

    check()


@pytest.mark.parametrize("new", [(3, 5), (6, 10), (11, 4), (24, 40), (1, 1), (12, 20)])
def test_nearest_pixel_by_centres(new):
    height, width = 12, 20
    moved = transform_labels(T.ResizeTransform(height, width, *new), places(height, width), FILL)
    for i in range(new[0]):
        for j in range(new[1]):
            # 1e-9: a centre on the border of two pixels belongs to the second.
            y = int((i + 0.5) * height / new[0] + 1e-9)
            x = int((j + 0.5) * width / new[1] + 1e-9)
            assert moved[i, j] == y * width + x


def test_flip_is_exact_and_has_probability_half(config):
    augmentations = build_augmentations(config("INPUT.MIN_SIZE_TRAIN", (50,)), is_train=True)
    np.random.seed(0)
    flipped = 0
    for _ in range(200):
        augmented = LabelledImage(ramps(50, 60), places(50, 60), FILL)
        augmentations(augmented)
        left = augmented.sem_seg[0, 0]
        assert left in (0, 59)
        flipped += left == 59
        expected = places(50, 60)[:, ::-1] if left else places(50, 60)
        assert np.array_equal(augmented.sem_seg, expected)
    assert 70 < flipped < 130
    off = build_augmentations(config("INPUT.RANDOM_FLIP", "none"), is_train=True)
    assert [type(a).__name__ for a in off.augs] == ["ResizeShortestEdge"]


def test_large_scale_jitter_fills_its_square(config):
    overrides = ("INPUT.DATASET_MAPPER_NAME", "coco_instance_lsj", "INPUT.IMAGE_SIZE", 96)
    augmentations = build_augmentations(config(*overrides), is_train=True)
    np.random.seed(1)
    part = []
    for _ in range(100):
        augmented = LabelledImage(ramps(60, 80), places(60, 80) * 0, IGNORE)
        augmentations(augmented)
        assert augmented.image.shape == (96, 96, 3) and augmented.sem_seg.shape == (96, 96)
        assert set(np.unique(augmented.sem_seg)) <= {0, IGNORE}
        part.append((augmented.sem_seg == 0).sum() / 96**2)
    # Scales 0.1 to 2 of a 4:3 image: at least 0.1 * 0.1 * 3/4, less rounding, and up to all of it.
    assert min(part) >= 0.006 and min(part) < 0.1 and max(part) == 1


def test_detr_crops_half_of_the_images_between_two_resizings(config):
    overrides = ("INPUT.DATASET_MAPPER_NAME", "detr_panoptic", "INPUT.MIN_SIZE_TRAIN", (120,))
    crop = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute_range")
    augmentations = build_augmentations(
        config(*overrides, *crop, "INPUT.CROP.SIZE", (384, 600)), is_train=True
    )
    np.random.seed(0)
    cropped, middle = 0, set()
    for _ in range(200):
        augmented = LabelledImage(ramps(60, 80), places(60, 80), FILL)
        transforms = augmentations(augmented)
        steps = [
            t for t in flatten(transforms) if isinstance(t, (T.ResizeTransform, T.CropTransform))
        ]
        kinds = [type(step).__name__ for step in steps]
        if len(steps) == 1:
            assert augmented.image.shape == (120, 160, 3)
            continue
        cropped += 1
        assert kinds == ["ResizeTransform", "CropTransform", "ResizeTransform"]
        middle.add(steps[0].new_h)
        assert 384 <= steps[1].w <= 600 and 384 <= steps[1].h <= steps[0].new_h
        assert min(augmented.image.shape[:2]) == 120
    assert 70 < cropped < 130
    assert middle == {400, 500, 600}
    off = build_augmentations(config(*overrides), is_train=True)
    assert [type(a).__name__ for a in off.augs] == ["RandomFlip", "ResizeShortestEdge"]


def flatten(transform: T.Transform) -> list[T.Transform]:
    if isinstance(transform, T.TransformList):
        return [step for inner in transform.transforms for step in flatten(inner)]
    return [transform]


def test_padding_goes_right_and_down_and_never_crops():
    transform = PadToSquare(5).get_transform(np.zeros((3, 7, 3), np.uint8))
    assert (transform.x0, transform.y0, transform.x1, transform.y1) == (0, 0, 0, 2)
    labels = transform_labels(transform, np.ones((3, 7), np.int32), 9)
    assert labels.tolist() == [[1] * 7] * 3 + [[9] * 7] * 2
    image = transform.apply_image(np.ones((3, 7, 3), np.uint8))
    assert image.shape == (5, 7, 3) and (image[3:] == 128).all() and (image[:3] == 1).all()


def test_denoising_is_not_padded(config):
    overrides = ["INPUT.SIZE_DIVISIBILITY", 64, "INPUT.DATASET_MAPPER_NAME"]
    padded = build_augmentations(config(*overrides, "mask_former_semantic"), is_train=True)
    denoising = build_augmentations(config(*overrides, "ddep_denoising"), is_train=True)
    assert isinstance(padded.augs[-1], PadToSquare)
    assert not any(isinstance(a, PadToSquare) for a in denoising.augs)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (20, 17)])
@pytest.mark.parametrize("name", ["ddep_denoising", "coco_panoptic_lsj"])
def test_tiny_and_very_long_images(config, size, name):
    cfg = config(
        *("INPUT.DATASET_MAPPER_NAME", name, "INPUT.MIN_SIZE_TRAIN", (32,), "INPUT.IMAGE_SIZE", 64),
        *("INPUT.MAX_SIZE_TRAIN", 200, "INPUT.CROP.ENABLED", True),
        *("INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (100, 100)),
    )
    augmented = LabelledImage(np.full((*size, 3), 7, np.uint8), np.zeros(size, np.int32), IGNORE)
    build_augmentations(cfg, is_train=True)(augmented)
    height, width = augmented.image.shape[:2]
    assert 1 <= height <= 100 and 1 <= width <= 100 and augmented.sem_seg.shape == (height, width)
    assert (augmented.image[augmented.sem_seg == 0] == 7).all() and (augmented.sem_seg == 0).any()


def test_test_time_resizes_only(config):
    cfg = config("INPUT.MIN_SIZE_TEST", 40, "INPUT.MAX_SIZE_TEST", 70, "INPUT.COLOR_AUG_SSD", True)
    for size, expected in (((80, 100), (40, 50)), ((80, 200), (28, 70))):
        augmented = LabelledImage(ramps(*size), None, IGNORE)
        transforms = build_augmentations(cfg, is_train=False)(augmented)
        assert augmented.image.shape[:2] == expected
        assert [type(t) for t in transforms.transforms] == [T.ResizeTransform]


def test_test_time_augmentation_gets_images_of_their_own_size(config):
    cfg = config("INPUT.MIN_SIZE_TEST", 40, "TEST.AUG.ENABLED", True)
    assert build_augmentations(cfg, is_train=False).augs == []


def test_mixed_crop_avoids_one_class_and_forgets_ignored_pixels():
    labels = np.zeros((100, 100), np.int32)
    labels[:, 80:] = 1
    image = np.zeros((100, 100, 3), np.uint8)

    def mixed(crop: T.Augmentation, labels: np.ndarray) -> float:
        np.random.seed(2)
        found = 0
        for _ in range(100):
            transform = crop.get_transform(image, labels)
            _, counts = np.unique(transform.apply_segmentation(labels), return_counts=True)
            found += len(counts) > 1 and counts.max() < 0.75 * 900
        return found / 100

    assert mixed(MixedCrop("absolute", (30, 30), 1.0, IGNORE), labels) < 0.5
    assert mixed(MixedCrop("absolute", (30, 30), 0.75, IGNORE), labels) > 0.75
    # With class 1 ignored no crop is mixed, so the tenth try stands, as good as any.
    assert mixed(MixedCrop("absolute", (30, 30), 0.75, 1), labels) < 0.5
    with pytest.raises(UserError, match="SINGLE_CATEGORY_MAX_AREA .* set it to 1.0"):
        MixedCrop("absolute", (30, 30), 0.75, IGNORE).get_transform(image, None)


@pytest.mark.parametrize(
    ("name", "area", "kind"),
    [
        ("mask_former_semantic", 0.75, MixedCrop),
        ("mask_former_panoptic", 0.75, MixedCrop),
        ("mask_former_instance", 0.75, T.RandomCrop),
        ("ddep_denoising", 0.75, T.RandomCrop),
        ("mask_former_semantic", 1.0, T.RandomCrop),
    ],
)
def test_which_crop(config, name, area, kind):
    cfg = config("INPUT.CROP.ENABLED", True, "INPUT.DATASET_MAPPER_NAME", name)
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = area
    augmentations = build_augmentations(cfg, is_train=True).augs
    assert [type(a) for a in augmentations if "Crop" in type(a).__name__] == [kind]


@pytest.mark.parametrize("direction", ["horizontal", "vertical"])
def test_flip_is_detectron2s(config, direction):
    cfg = config("INPUT.RANDOM_FLIP", direction, "INPUT.MIN_SIZE_TRAIN", (30,))
    ours = build_augmentations(cfg, is_train=True).augs[-1]
    theirs = T.RandomFlip(horizontal=direction == "horizontal", vertical=direction == "vertical")
    image = np.random.default_rng(5).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    points = np.array([[3.0, 4.0], [10.5, 20.25]])
    for seed in range(10):
        transforms = []
        for flip in (ours, theirs):
            np.random.seed(seed)
            transforms.append(flip.get_transform(image))
        one, other = transforms
        assert np.array_equal(one.apply_image(image), other.apply_image(image))
        assert one.apply_image(image).flags.c_contiguous
        assert np.array_equal(one.apply_coords(points.copy()), other.apply_coords(points.copy()))
        for labels in (places(30, 40), places(30, 40) > 99, places(30, 40).astype(np.int64)):
            expected = other.apply_segmentation(labels)
            assert np.array_equal(one.apply_segmentation(labels), expected)


def test_jitter_recolours_before_it_pads(config):
    cfg = config("INPUT.DATASET_MAPPER_NAME", "coco_panoptic_lsj", "INPUT.COLOR_AUG_SSD", True)
    names = [type(a).__name__ for a in build_augmentations(cfg, is_train=True).augs]
    assert names == ["RandomFlip", "RandomColour", "ResizeScale", "FixedSizeCrop"]


@pytest.mark.parametrize("name", ["mask_former_semantic", "coco_panoptic_lsj", "ddep_denoising"])
def test_augmentations_can_be_sent_to_another_process(config, name):
    cfg = config("INPUT.DATASET_MAPPER_NAME", name, "INPUT.COLOR_AUG_SSD", True)
    cfg.merge_from_list(["INPUT.COLOR_JITTER.ENABLED", True, "INPUT.COLOR_JITTER.PROBABILITY", 1.0])
    cfg.merge_from_list(["INPUT.CROP.ENABLED", True, "INPUT.SIZE_DIVISIBILITY", 800])
    augmentations = build_augmentations(cfg, is_train=True)
    images = []
    for a in (augmentations, pickle.loads(pickle.dumps(augmentations))):
        np.random.seed(4)
        random.seed(4)
        torch.manual_seed(4)
        augmented = LabelledImage(ramps(50, 60), None, IGNORE)
        a(augmented)
        images.append(augmented.image)
    assert np.array_equal(*images)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["INPUT.RANDOM_FLIP", "both"], "INPUT.RANDOM_FLIP is 'both'; expected one of horizontal"),
        *(
            (
                ["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", kind, "INPUT.CROP.SIZE", size],
                f"INPUT.CROP.TYPE {kind} needs two",
            )
            for kind, size in (
                ("absolute", [0.5, 0.5]),
                ("absolute", [0, 512]),
                ("absolute", [512]),
                ("absolute_range", [512, 256]),
                ("relative", [512, 512]),
                ("relative", ["a", "b"]),
                ("relative_range", [0.0, 0.5]),
            )
        ),
        (["INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "square"], "INPUT.CROP.TYPE is 'square'"),
        (["INPUT.FORMAT", "L"], "INPUT.FORMAT is 'L'; expected one of RGB, BGR"),
        (["INPUT.MIN_SIZE_TRAIN_SAMPLING", "all"], "INPUT.MIN_SIZE_TRAIN_SAMPLING is 'all'"),
        (["INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"], "INPUT.MIN_SIZE_TRAIN is .* two values"),
    ],
)
def test_unknown_values(config, overrides, message):
    with pytest.raises(UserError, match=message):
        build_augmentations(config(*overrides), is_train=True)
