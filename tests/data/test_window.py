from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddep.data.augmentation import ResizeShortestEdge, build_augmentations
from ddep.data.image_reader import open_image
from ddep.data.window import Window, draw_window, read_window

CROP = ("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (40, 50))


def photograph(height: int, width: int) -> np.ndarray:
    """Slow waves and a little grain."""
    rng = np.random.default_rng(0)
    grid = rng.uniform(40, 215, (height // 40 + 2, width // 40 + 2, 3)).astype(np.float32)
    waves = cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(waves + rng.normal(0, 4, waves.shape), 0, 255).astype(np.uint8)


def by_pillow(pixels: np.ndarray, window: Window) -> np.ndarray:
    """Resize all, then crop."""
    height, width = window.whole
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    rows, columns = window.size
    return np.asarray(resized)[window.top :, window.left :][:rows, :columns]


def read(path: Path, window: Window, order: str = "RGB", draft: bool = False) -> np.ndarray:
    with open_image(str(path)) as image:
        return read_window(image, window, order, draft)


@pytest.mark.parametrize("crop", [(), CROP])
@pytest.mark.parametrize("sampling", ["choice", "range"])
def test_the_window_is_what_the_augmentations_draw(config, crop, sampling):
    sizes = ("INPUT.MIN_SIZE_TRAIN", (60, 90), "INPUT.MIN_SIZE_TRAIN_SAMPLING", sampling)
    name = ("INPUT.DATASET_MAPPER_NAME", "ddep_denoising")
    augmentations = build_augmentations(config(*name, *sizes, *crop), is_train=True)
    for seed in range(20):
        np.random.seed(seed)
        window, rest = draw_window(augmentations.augs, (75, 100))
        following = np.random.rand()
        np.random.seed(seed)
        image = T.AugInput(np.zeros((75, 100, 3), np.uint8))
        transforms = T.AugmentationList(augmentations.augs[: 1 + bool(crop)])(image).transforms
        assert image.image.shape[:2] == window.size
        assert (transforms[0].new_h, transforms[0].new_w) == window.whole
        if crop:
            assert (transforms[1].y0, transforms[1].x0) == (window.top, window.left)
        else:
            assert (window.top, window.left, window.size) == (0, 0, window.whole)
        assert np.random.rand() == following
        assert [type(a).__name__ for a in rest] == ["RandomFlip"]


def test_augmentations_that_look_at_pixels_are_left():
    flip, resize = T.RandomFlip(), ResizeShortestEdge(30, 100)
    window, rest = draw_window([flip, resize], (60, 80))
    assert window == Window((60, 80), 0, 0, (60, 80)) and rest == [flip, resize]
    area = T.RandomCrop_CategoryAreaConstraint("absolute", (10, 10))
    window, rest = draw_window([resize, area], (60, 80))
    assert window == Window((30, 40), 0, 0, (30, 40)) and rest == [area]
    cubic = ResizeShortestEdge(30, 100, interp=Image.Resampling.BICUBIC)
    window, rest = draw_window([cubic], (60, 80))
    assert window.whole == (60, 80) and rest == [cubic]


@pytest.mark.parametrize("size", [(75, 100), (31, 200), (149, 199), (300, 400), (1, 1)])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_a_whole_image_is_pillows_up_to_one_level(tmp_path, size, order):
    pixels = np.random.default_rng(2).integers(0, 256, (150, 200, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    window = Window(size, 0, 0, size)
    found = read(path, window, order)
    assert found.dtype == np.uint8 and found.flags.c_contiguous and found.flags.writeable
    expected = by_pillow(pixels, window)[..., :: 1 if order == "RGB" else -1]
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_without_resizing_pixels_are_those_of_the_file(tmp_path):
    pixels = photograph(60, 80)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read(tmp_path / "a.png", Window((60, 80), 7, 9, (20, 30)))
    assert np.array_equal(found, pixels[7:27, 9:39])


@pytest.mark.parametrize(
    "window",
    [
        Window((75, 100), 11, 23, (50, 60)),
        Window((75, 100), 25, 40, (50, 60)),
        Window((140, 187), 3, 5, (64, 64)),
        Window((300, 400), 61, 93, (64, 64)),
    ],
)
def test_a_crop_is_at_its_place(tmp_path, window):
    """On a ramp of one level per pixel, values are places: within half a pixel, and rounding."""
    y, x = np.mgrid[:150, :200]
    pixels = np.stack([x, y, np.zeros_like(x)], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = read(tmp_path / "a.png", window)
    assert found.shape == (*window.size, 3)
    error = np.abs(found.astype(int) - by_pillow(pixels, window))
    assert error.max() <= 2
    # Inside, away from the borders of the crop, which see nothing beyond.
    assert error[3:-3, 3:-3].max() <= 1


@pytest.mark.parametrize("size", [(100, 133), (150, 200), (199, 265), (120, 160)])
def test_draft_is_close_to_a_resize_of_everything(tmp_path, size):
    """The transform of blocks is a sharper filter than averaging: they differ by some grain."""
    pixels = photograph(600, 800)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).save(path, quality=95)
    window = Window(size, size[0] // 8, size[1] // 8, (size[0] // 2, size[1] // 2))
    full, draft = (read(path, window, draft=on).astype(float) for on in (False, True))
    assert draft.shape == (*window.size, 3)
    difference = draft - full
    assert np.abs(difference.mean()) < 0.2 and np.abs(difference).mean() < 2
    assert not np.array_equal(draft, full)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_window_of_any_image(tmp_path_factory, data):
    sides = st.integers(1, 90)
    height, width, rows, columns = (data.draw(sides) for _ in range(4))
    path = tmp_path_factory.getbasetemp() / "window.jpg"
    Image.new("RGB", (width, height), (90, 150, 30)).save(path, quality=95)
    size = data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns))
    top = data.draw(st.integers(0, rows - size[0]))
    left = data.draw(st.integers(0, columns - size[1]))
    found = read(path, Window((rows, columns), top, left, size), draft=data.draw(st.booleans()))
    assert found.shape == (*size, 3)
    assert np.abs(found - np.array([90.0, 150, 30])).max() <= 3
