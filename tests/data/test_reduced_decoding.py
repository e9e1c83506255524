"""Decoding JPEG files at a smaller size, and parts of images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddep.data.image_reader import UnreadableImageError, open_image, read_image

ORIENTATION = 0x0112


def smooth(height: int, width: int) -> np.ndarray:
    """Waves longer than a block of 8 pixels, in grey levels 40 to 215."""
    rng = np.random.default_rng(0)
    grid = rng.uniform(40, 215, (height // 32 + 2, width // 32 + 2, 3)).astype(np.float32)
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Noise away from 0 and 255, so that nothing is clipped."""
    return np.random.default_rng(1).integers(64, 192, (height, width, channels), dtype=np.uint8)


def block_means(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width, channels = pixels.shape
    blocks = pixels.reshape(height // side, side, width // side, side, channels)
    return blocks.mean(axis=(1, 3), dtype=np.float64)


def save(pixels: np.ndarray, path: Path, **options) -> str:
    image = Image.fromarray(pixels, "CMYK" if pixels.shape[2] == 4 else None)
    image.save(path, **{"quality": 100, "subsampling": 0, **options})
    return str(path)


def pixels(path: str, *arguments, **keywords) -> np.ndarray:
    with open_image(path) as image:
        return image.pixels("RGB", *arguments, **keywords)


@pytest.mark.parametrize("progressive", [False, True])
def test_an_eighth_is_the_mean_of_blocks(tmp_path, progressive):
    """A block's mean is the first coefficient of its cosine transform, whatever the others are."""
    image = noise(64, 96)
    path = save(image, tmp_path / "a.jpg", progressive=progressive)
    found = pixels(path, least_size=(8, 12))
    assert found.shape == (8, 12, 3)
    # Quantised in steps of 1/8; two conversions of colours, each rounded.
    assert np.abs(found - block_means(image, 8)).max() <= 2


@pytest.mark.parametrize("side", [2, 4])
def test_a_half_and_a_quarter_are_near_the_mean_where_the_image_is_smooth(tmp_path, side):
    image = smooth(64, 96)
    path = save(image, tmp_path / "a.jpg")
    found = pixels(path, least_size=(64 // side, 96 // side))
    assert found.shape == (64 // side, 96 // side, 3)
    # Left-out coefficients hold little of such waves.
    assert np.abs(found - block_means(image, side)).max() <= 4


def test_grey_and_cmyk(tmp_path):
    grey = noise(64, 96, 1)
    path = str(tmp_path / "grey.jpg")
    Image.fromarray(grey[..., 0]).save(path, quality=100)
    expected = np.repeat(block_means(grey, 8), 3, axis=2)
    assert np.abs(pixels(path, least_size=(8, 8)) - expected).max() <= 1
    ink = np.kron(noise(8, 12, 4), np.ones((8, 8, 1), np.uint8))
    path = save(ink, tmp_path / "ink.jpg")
    inverse = 255 - ink[::8, ::8].astype(float)
    expected = inverse[..., :3] * inverse[..., 3:] / 255
    assert np.abs(pixels(path, least_size=(8, 12)) - expected).max() <= 3


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(1, 150), st.integers(1, 150))
def test_never_below_what_is_enough(tmp_path_factory, height, width, least_height, least_width):
    path = tmp_path_factory.getbasetemp() / "any.jpg"
    Image.new("RGB", (width, height)).save(path)
    shape = pixels(str(path), least_size=(least_height, least_width)).shape
    fits = [
        part
        for part in (8, 4, 2, 1)
        if height >= part * least_height and width >= part * least_width or part == 1
    ]
    assert shape == (-(-height // fits[0]), -(-width // fits[0]), 3)
    assert shape[0] >= min(height, least_height) and shape[1] >= min(width, least_width)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_the_upright_image(tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = save(smooth(64, 128), tmp_path / "a.jpg", exif=exif)
    upright = read_image(path)
    with open_image(path) as image:
        assert image.size == upright.shape[:2] == ((64, 128) if orientation < 5 else (128, 64))
        # With sides swapped, a quarter would not be enough.
        least = (16, 32) if orientation < 5 else (32, 16)
        found = image.pixels("RGB", least_size=least)
    assert found.shape[:2] == least
    assert np.abs(found - block_means(upright, 4)).max() <= 4


@pytest.mark.parametrize("ending", ["png", "bmp", "webp", "tif"])
def test_other_formats_are_decoded_in_full(tmp_path, ending):
    path = str(tmp_path / f"a.{ending}")
    Image.fromarray(noise(40, 50)).save(path)
    assert np.array_equal(pixels(path, least_size=(2, 2)), read_image(path))


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_parts_are_rounded_to_whole_pixels(tmp_path, ending, order):
    path = save(noise(40, 50), tmp_path / f"a.{ending}")
    whole = read_image(path, order)

    def part(*borders: float) -> np.ndarray:
        with open_image(path) as image:
            return image.pixels(order, part=borders)

    assert np.array_equal(part(0, 0, 1, 1), whole)
    assert np.array_equal(part(0.26, 0.1, 0.74, 0.51), whole[10:30, 5:26])
    # at least one pixel, inside
    assert np.array_equal(part(0.501, 0.999, 0.502, 1), whole[20:21, 49:50])


def test_damage_is_found_when_pixels_are_decoded(tmp_path):
    path = save(noise(400, 300), tmp_path / "a.jpg")
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: len(data) // 2])
    with (
        open_image(path) as image,
        pytest.raises(UnreadableImageError, match="a.jpg .* truncated"),
    ):
        assert image.size == (400, 300)
        image.pixels("RGB", least_size=(50, 30))
    with pytest.raises(UnreadableImageError, match="none.jpg cannot be read: No such"):
        pixels(str(tmp_path / "none.jpg"))


def test_errors_of_the_block_are_not_taken_for_the_files(tmp_path):
    path = save(noise(8, 8), tmp_path / "a.png")
    with pytest.raises(ZeroDivisionError), open_image(path):
        1 / 0  # noqa: B018
