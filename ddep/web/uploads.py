"""Images that visitors send: refused from their headers if they are too large."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ddep.data.image_reader import UnreadableImageError, read_image
from ddep.errors import UserError

# Pillow also opens formats for which it runs other programs, such as Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True)
class Limits:
    """What the page takes.

    Attributes:
        megabytes: largest file.
        megapixels: largest image.
    """

    megabytes: float = 20
    megapixels: float = 10


def read_upload(path: str, name: str, limits: Limits) -> np.ndarray:
    """Read an image that a visitor sent; nothing is decoded before its size is known.

    Args:
        path: of the file on the server, which no message shows.
        name: what the visitor calls it.
        limits: what is taken.

    Returns:
        (H, W, 3) uint8, RGB, as :func:`ddep.data.image_reader.read_image` reads it.

    Raises:
        UserError: the image is too large, or cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{name} has far more than {limits.megapixels:g} megapixels, the most that this page "
            "takes; send a smaller one"
        ) from error
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise UserError(
            f"{name} is not an image that this page can read; send one of these formats: "
            f"{', '.join(FORMATS)}"
        ) from error
    if width * height > limits.megapixels * 1e6:
        raise UserError(
            f"{name} has {width}x{height} pixels, {width * height / 1e6:.1f} megapixels; this page "
            f"takes {limits.megapixels:g}; send a smaller one"
        )
    try:
        return read_image(path)
    except UnreadableImageError as error:
        cause = str(error).partition("cannot be read: ")[2].partition(";")[0]
        raise UserError(f"{name} cannot be read: {cause.replace(path, name)}") from error
