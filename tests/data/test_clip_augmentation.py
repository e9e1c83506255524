from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import transforms as T

from ddep.data.augmentation import RandomFlip, ResizeShortestEdge, build_augmentations
from ddep.data.clip_augmentation import (
    AlikeInClip,
    RandomRotation,
    build_frame_augmentations,
    for_clip,
)
from ddep.errors import UserError

IMAGE = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)


def test_alike_in_a_clip() -> None:
    """Frames after the first draw nothing; those that are not alike draw as if they were alone."""
    resize = AlikeInClip(ResizeShortestEdge((20, 200), sample_style="range"))
    augmentations = [resize, RandomFlip()]
    flips, sizes = [], []
    np.random.seed(3)
    for _ in range(8):
        clip = for_clip(augmentations)
        for _ in range(4):
            transforms = T.AugmentationList(clip)(T.AugInput(IMAGE)).transforms
            sizes.append(transforms[0].new_h)
            flips.append(isinstance(transforms[1], T.HFlipTransform))
    np.random.seed(3)
    for clip in range(8):
        assert set(sizes[4 * clip : 4 * clip + 4]) == {np.random.randint(20, 201)}
        assert flips[4 * clip : 4 * clip + 4] == [np.random.uniform() < 0.5 for _ in range(4)]
    assert len(set(sizes)) > 4


def test_outside_of_clips_nothing_is_alike() -> None:
    flip = AlikeInClip(RandomFlip())
    np.random.seed(0)
    drawn = [isinstance(flip.get_transform(IMAGE), T.HFlipTransform) for _ in range(20)]
    assert 2 < sum(drawn) < 18


def test_masks_rotate_with_the_image() -> None:
    mask = np.zeros((60, 80), dtype=bool)
    mask[20:34, 30:55] = True
    image = np.repeat(255 * mask[..., None].astype(np.uint8), 3, axis=2)
    rotation = RandomRotation([-15, 15], expand=False, center=[(0.4, 0.4), (0.6, 0.6)])
    np.random.seed(0)
    angles = []
    for _ in range(10):
        transform = rotation.get_transform(image)
        angles.append(transform.angle)
        rotated, seen = transform.apply_segmentation(mask), transform.apply_image(image)[..., 0]
        assert rotated.dtype == bool
        clear = np.abs(seen.astype(int) - 127) > 100
        np.testing.assert_array_equal(rotated[clear], seen[clear] > 127)
        assert clear.mean() > 0.9
        # Polygons rotate as images do.
        y, x = np.mgrid[:60, :80] + 0.5
        middle = np.average([x, y], axis=(1, 2), weights=np.stack([seen, seen]))
        [expected] = transform.apply_coords(np.array([[42.5, 27.0]]))
        np.testing.assert_allclose(middle, expected, atol=0.01)
    assert max(np.abs(angles)) < 15 < 3 * max(np.abs(angles))


def test_the_names_of_augmentations(config) -> None:
    names = ["rotation", "saturation", "contrast", "brightness"]
    built = build_frame_augmentations(config("INPUT.AUGMENTATIONS", names))
    expected = [T.RandomBrightness, T.RandomContrast, T.RandomSaturation, RandomRotation]
    assert [type(augmentation) for augmentation in built] == expected
    assert [(a.intensity_min, a.intensity_max) for a in built[:3]] == [(0.9, 1.1)] * 3
    assert build_frame_augmentations(config()) == []
    with pytest.raises(UserError, match=r"^INPUT\.AUGMENTATIONS has 'hue'; expected some of .*"):
        build_frame_augmentations(config("INPUT.AUGMENTATIONS", ["contrast", "hue"]))


VIDEO = ("INPUT.DATASET_MAPPER_NAME", "mask_former_video_instance", "INPUT.FORMAT", "RGB")


def test_what_frames_share(config) -> None:
    shared = ("MIN_SIZE_TRAIN_SAMPLING", "choice_by_clip"), ("RANDOM_FLIP", "flip_by_clip")
    keys = [part for key, value in shared for part in (f"INPUT.{key}", value)]
    crop = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (4, 4))
    built = build_augmentations(config(*VIDEO, *keys, *crop), is_train=True).augs
    assert [type(a.augmentation) for a in built] == [T.RandomCrop, ResizeShortestEdge, RandomFlip]
    built = build_augmentations(config(*VIDEO, *crop), is_train=True).augs
    assert [type(a) for a in built] == [AlikeInClip, ResizeShortestEdge, RandomFlip]


def test_images_have_no_clips(config) -> None:
    for key, value in (
        ("MIN_SIZE_TRAIN_SAMPLING", "range_by_clip"),
        ("RANDOM_FLIP", "flip_by_clip"),
    ):
        with pytest.raises(UserError, match=f"INPUT.{key} is '{value}'; expected one of"):
            build_augmentations(config(f"INPUT.{key}", value), is_train=True)
