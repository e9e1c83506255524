from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddep.data.image_reader import UnreadableImageError, read_image, read_labels, read_panoptic
from ddep.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[..., 0]
# What each EXIF orientation does to the stored pixels, by the standard's definition: the sides that
# row 0 and column 0 are on.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: stored[::-1].swapaxes(0, 1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: stored[:, ::-1].swapaxes(0, 1),
}


def save(image: Image.Image, path: Path, **options) -> str:
    image.save(path, **options)
    return str(path)


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def repeated(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=2)


def test_rgb_and_bgr(tmp_path):
    path = save(Image.fromarray(RGB), tmp_path / "a.png")
    image = read_image(path)
    assert image.dtype == np.uint8 and image.flags.writeable and image.flags.c_contiguous
    assert np.array_equal(image, RGB)
    assert np.array_equal(read_image(path, "BGR"), RGB[..., ::-1])
    assert read_image(path, "BGR").flags.c_contiguous
    with pytest.raises(UserError, match="INPUT.FORMAT is 'YUV'"):
        read_image(path, "YUV")


def test_jpeg_is_close_to_another_decoder(tmp_path):
    smooth = cv2.resize(RGB, (70, 50), interpolation=cv2.INTER_CUBIC)
    path = save(Image.fromarray(smooth), tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(path, "BGR").astype(int) - cv2.imread(path)).max() <= 3


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
def test_exif_orientation(tmp_path, orientation, ending):
    options = {"lossless": True} if ending == "webp" else {}
    path = save(Image.fromarray(RGB), tmp_path / f"a.{ending}", exif=exif(orientation), **options)
    assert np.array_equal(read_image(path), UPRIGHT[orientation](RGB))


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_of_jpeg_and_16_bit(tmp_path, orientation):
    stored = np.kron(np.array([[0, 255, 90], [30, 160, 220]], np.uint8), np.ones((8, 8), np.uint8))
    path = save(Image.fromarray(stored), tmp_path / "a.jpg", quality=100, exif=exif(orientation))
    expected = repeated(UPRIGHT[orientation](stored)).astype(int)
    assert np.abs(read_image(path) - expected).max() <= 2
    deep = stored.astype(np.uint16) * 257
    path = save(Image.fromarray(deep), tmp_path / "a.png", exif=exif(orientation))
    assert np.array_equal(read_image(path), expected)


def test_damaged_exif_is_no_orientation(tmp_path):
    # A resolution in the JFIF header keeps Pillow from reading, and forgiving, the EXIF data early.
    path = save(Image.fromarray(GREY), tmp_path / "a.jpg", quality=100, dpi=(72, 72))
    data = Path(path).read_bytes()
    end = 4 + struct.unpack(">H", data[4:6])[0]
    garbage = b"Exif\0\0no TIFF header"
    marker = b"\xff\xe1" + struct.pack(">H", len(garbage) + 2) + garbage
    Path(path).write_bytes(data[:end] + marker + data[end:])
    with pytest.raises(SyntaxError), Image.open(path) as image:
        image.getexif()
    assert np.abs(read_image(path) - repeated(GREY).astype(int)).max() <= 2


def test_grey_and_one_bit(tmp_path):
    path = save(Image.fromarray(GREY), tmp_path / "a.png")
    assert np.array_equal(read_image(path), repeated(GREY))
    path = save(Image.fromarray(GREY > 99), tmp_path / "b.png")
    assert Image.open(path).mode == "1"
    assert np.array_equal(read_image(path), repeated(np.where(GREY > 99, 255, 0)))


def test_transparency_is_dropped(tmp_path):
    alpha = RGB[..., 1:2]
    path = save(Image.fromarray(np.concatenate([RGB, alpha], 2)), tmp_path / "a.png")
    assert np.array_equal(read_image(path), RGB)
    path = save(Image.fromarray(RGB[..., :2], "LA"), tmp_path / "b.png")
    assert np.array_equal(read_image(path), repeated(GREY))
    path = save(Image.fromarray(RGB), tmp_path / "c.png", transparency=(1, 2, 3))
    assert np.array_equal(read_image(path), RGB)


@pytest.mark.parametrize("transparency", [None, 3, bytes([0, 128, 255])])
def test_palette(tmp_path, transparency):
    indices = GREY % 6
    colours = RGB.reshape(-1, 3)[:6]
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    options = {} if transparency is None else {"transparency": transparency}
    path = save(image, tmp_path / "a.png", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read_image(path), colours[indices])


def test_cmyk_jpeg(tmp_path):
    """Adobe's way round, which is every writer's: 0 is full ink. Pillow turns it when saving."""
    ink = np.random.default_rng(1).integers(0, 256, (2, 3, 4))
    blocks = np.kron(ink, np.ones((8, 8, 1), int)).astype(np.uint8)
    path = save(Image.fromarray(blocks, "CMYK"), tmp_path / "a.jpg", quality=100)
    assert b"Adobe" in Path(path).read_bytes()
    expected = (255 - blocks[..., :3].astype(float)) * (255 - blocks[..., 3:].astype(float)) / 255
    assert np.abs(read_image(path) - expected).max() <= 3
    assert np.abs(read_image(path, "BGR").astype(int) - cv2.imread(path)).max() <= 4


def test_ycck_jpeg(tmp_path):
    """As a CMYK file whose marker says that its first three channels are Y, Cb and Cr."""
    y, cb, cr, k = 150, 140, 110, 200
    stored = np.full((8, 8, 4), (y, cb, cr, k), np.uint8)
    path = save(Image.fromarray(255 - stored, "CMYK"), tmp_path / "a.jpg", quality=100)
    data = bytearray(Path(path).read_bytes())
    data[data.index(b"Adobe") + 11] = 2
    Path(path).write_bytes(data)
    red = y + 1.402 * (cr - 128)
    green = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128)
    blue = y + 1.772 * (cb - 128)
    # 255 - red etc. are stored inks, of which 0 is full.
    expected = (255 - np.array([red, green, blue])) * k / 255
    assert np.abs(read_image(path) - expected).max() <= 3


DEEP = np.array([[0, 255, 256, 257], [4095, 32768, 65279, 65535]], np.uint16)
SHALLOW = np.array([[0, 0, 1, 1], [15, 128, 254, 255]], np.uint8)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_grey_is_scaled(tmp_path, ending):
    path = save(Image.fromarray(DEEP), tmp_path / f"a.{ending}")
    assert Image.open(path).mode.startswith("I;16")
    assert np.array_equal(read_image(path), repeated(SHALLOW))


def test_16_bit_grey_in_other_integer_modes(tmp_path):
    path = save(Image.fromarray(DEEP.astype(">u2")), tmp_path / "a.tif")
    assert np.array_equal(read_image(path), repeated(SHALLOW))
    path = save(Image.fromarray(DEEP.astype(np.int32)), tmp_path / "b.tif")
    assert Image.open(path).mode == "I"
    assert np.array_equal(read_image(path), repeated(SHALLOW))


@pytest.mark.parametrize("alpha", [False, True])
def test_16_bit_colour_is_scaled(tmp_path, alpha):
    channels = [DEEP, DEEP[::-1], DEEP[:, ::-1]]
    path = str(tmp_path / "a.png")
    cv2.imwrite(path, np.stack([*channels, DEEP] if alpha else channels, axis=2))
    expected = np.stack([SHALLOW, SHALLOW[::-1], SHALLOW[:, ::-1]], axis=2)
    assert np.array_equal(read_image(path, "BGR"), expected)
    assert np.array_equal(read_image(path), expected[..., ::-1])


@pytest.mark.parametrize("pixels", [np.float32([[0.5]]), np.int32([[70000]]), np.int32([[-1]])])
def test_unknown_range_is_refused(tmp_path, pixels):
    path = save(Image.fromarray(pixels), tmp_path / "a.tif")
    with pytest.raises(UnreadableImageError, match=f"{path} .* unknown range"):
        read_image(path)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(UnreadableImageError, match="none.png cannot be read: No such file"):
        read_image(str(tmp_path / "none.png"))
    path = tmp_path / "text.jpg"
    path.write_text("no image")
    with pytest.raises(UnreadableImageError, match="text.jpg .* not an image that Pillow knows"):
        read_image(str(path))
    path.write_bytes(b"")
    with pytest.raises(
        UnreadableImageError, match="label image .*text.jpg .* not an image that Pil"
    ):
        read_labels(str(path))


def test_decompression_bomb_is_unreadable(tmp_path, monkeypatch):
    path = save(Image.fromarray(RGB), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(
        UnreadableImageError, match="a.png .* more than 20 pixels, .* bombs; replace"
    ):
        read_image(path)


def encoded(ending: str) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(2).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, ending)
    return file.getvalue()


@pytest.mark.parametrize("ending", ["jpeg", "png"])
def test_truncated(tmp_path, ending):
    data = encoded(ending)
    path = tmp_path / f"a.{ending}"
    for length in range(0, len(data) - 16, 97):
        path.write_bytes(data[:length])
        with pytest.raises(UnreadableImageError) as error:
            read_image(str(path))
        assert "\n" not in str(error.value) and str(path) in str(error.value)


DAMAGES = st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=4)


@pytest.mark.parametrize("ending", ["jpeg", "png", "gif", "tiff", "webp", "bmp"])
def test_damage_raises_no_other_error(tmp_path, ending):
    data = encoded(ending)
    path = tmp_path / "a"

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(DAMAGES)
    def check(damages):
        damaged = bytearray(data)
        for position, value in damages:
            damaged[position % len(data)] = value
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image = read_image(str(path))
            except UnreadableImageError:
                return
        assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8

    check()


def test_labels(tmp_path):
    path = save(Image.fromarray(GREY), tmp_path / "a.png")
    labels = read_labels(path)
    assert labels.dtype == np.int32 and np.array_equal(labels, GREY)
    palette = Image.fromarray(GREY % 6)
    palette.putpalette(RGB.tobytes()[:18])
    assert np.array_equal(read_labels(save(palette, tmp_path / "b.png")), GREY % 6)
    path = save(Image.fromarray(DEEP), tmp_path / "c.png")
    assert np.array_equal(read_labels(path), DEEP)
    path = save(Image.fromarray(GREY > 99), tmp_path / "d.png")
    assert np.array_equal(read_labels(path), GREY > 99)


@pytest.mark.parametrize("pixels", [RGB, RGB[..., :2], np.float32([[1]])])
def test_other_kinds_of_labels_are_refused(tmp_path, pixels):
    path = save(Image.fromarray(pixels), tmp_path / "a.tif")
    with pytest.raises(UserError, match=f"{path} is of kind .* one integer per pixel") as error:
        read_labels(path)
    assert not isinstance(error.value, UnreadableImageError)


def test_panoptic(tmp_path):
    path = save(Image.fromarray(RGB), tmp_path / "a.png")
    ids = read_panoptic(path)
    red, green, blue = RGB.astype(np.int64).transpose(2, 0, 1)
    assert ids.dtype == np.int32 and np.array_equal(ids, red + 256 * green + 256 * 256 * blue)
    palette = Image.fromarray(GREY % 6)
    palette.putpalette(RGB.tobytes()[:18])
    path = save(palette, tmp_path / "b.png")
    expected = RGB.reshape(-1, 3)[GREY % 6].astype(np.int64) @ [1, 256, 65536]
    assert np.array_equal(read_panoptic(path), expected)
    path = save(Image.fromarray(DEEP), tmp_path / "c.png")
    with pytest.raises(UserError, match="c.png is of kind I;16"):
        read_panoptic(path)
