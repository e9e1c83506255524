from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddep.errors import UserError
from ddep.web.uploads import Limits, read_upload


def write_bomb(path: Path, width: int, height: int) -> Path:
    """A PNG file of a few bytes whose header promises width x height pixels."""
    chunks = b""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        crc = zlib.crc32(name + data)
        chunks += struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize("side", [5000, 12000, 60000])
def test_large_images_are_refused_from_the_header(tmp_path: Path, side: int) -> None:
    path = write_bomb(tmp_path / "secret", side, side)
    with pytest.raises(UserError, match="bomb.png has .*megapixels.*; send a smaller one") as error:
        read_upload(str(path), "bomb.png", Limits(megapixels=10))
    assert "secret" not in str(error.value) and "\n" not in str(error.value)


def test_an_image_of_just_the_limit_is_read(tmp_path: Path) -> None:
    Image.new("RGB", (100, 50), (1, 2, 3)).save(tmp_path / "a.png")
    pixels = read_upload(str(tmp_path / "a.png"), "a.png", Limits(megapixels=0.005))
    assert pixels.shape == (50, 100, 3) and (pixels == (1, 2, 3)).all()
    with pytest.raises(UserError, match="100x50"):
        read_upload(str(tmp_path / "a.png"), "a.png", Limits(megapixels=0.0049))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "is not an image that this page can read"),
        # Pillow would run Ghostscript.
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image that this page"),
        ("cut", "cannot be read: image file is truncated"),
    ],
)
def test_what_cannot_be_read_is_named_without_its_path(
    tmp_path: Path, content: bytes | str, message: str
) -> None:
    path = tmp_path / "secret"
    if content == "cut":
        noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, format="PNG")
        content = path.read_bytes()[:9000]
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"a.png {message}") as error:
        read_upload(str(path), "a.png", Limits())
    assert "secret" not in str(error.value)
