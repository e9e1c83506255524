"""Read images and label images of every common format, or say why they cannot be read."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import cv2
import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from ddep.data.image_in_memory import ImageInMemory
from ddep.errors import UserError

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = [_TRANSPOSITIONS[orientation] for orientation in (5, 6, 7, 8)]

# Images up to Pillow's limit are read without remark; of larger ones an error tells.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class UnreadableImageError(UserError):
    """An image file is missing, damaged or of a format without 8-bit meaning.

    Training skips such images up to a limit; everything else stops.
    """


def read_image(path: str, format: str = "RGB") -> np.ndarray:
    """Read an image file as the user sees it: upright, in three channels of 8 bits.

    EXIF orientation is applied, unless the EXIF data are damaged. Grey values are repeated,
    palettes are looked up, CMYK is converted, transparency is dropped. The upper 8 of 16 bits are
    kept. The first of several frames is read.

    Args:
        path: the file, or anything else that detectron2's ``PathManager`` opens; or an
            :class:`ddep.data.image_in_memory.ImageInMemory`.
        format: order of the channels, ``"RGB"`` or ``"BGR"`` (``INPUT.FORMAT``).

    Returns:
        (H, W, 3) uint8, contiguous and writable.

    Raises:
        UnreadableImageError: missing, truncated or otherwise damaged; too large for Pillow's guard
            against decompression bombs; floating-point or 32-bit pixels.
        UserError: ``format`` is neither RGB nor BGR.
    """
    with open_image(path) as image:
        return image.pixels(format)


@contextmanager
def open_image(path: str) -> Iterator[EncodedImage]:
    """Open an image file, so that a JPEG file can be decoded in part or at a smaller size.

    Args:
        path: as in :func:`read_image`.

    Raises:
        UnreadableImageError: as in :func:`read_image`, on opening or on decoding.
    """
    with _open(path, "image") as image:
        yield image


class EncodedImage:
    """An open image file with a known size; JPEG files are not decoded yet."""

    def __init__(self, path: str, image: Image.Image, what: str) -> None:
        """
        Args:
            path: for error messages.
            image: as Pillow opens it.
            what: what error messages call it, such as ``"image"``.

        Raises:
            UnreadableImageError: damaged.
        """
        self.path = path
        self._what = what
        self._image = image
        with _as_unreadable(what, path):
            if not isinstance(image, JpegImageFile):
                # Loading comes first: Pillow turns some formats itself when it loads them.
                image.load()
            self._turn = _TRANSPOSITIONS.get(_orientation(image))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        width, height = self._image.size
        return (width, height) if self._turn in _SIDEWAYS else (height, width)

    def decode(
        self,
        least_size: tuple[int, int] | None = None,
        part: tuple[float, float, float, float] | None = None,
    ) -> Image.Image:
        """Decode the image, or a part of it, upright. Call this only once.

        Args:
            least_size: height and width that are enough. A JPEG file is then decoded at the
                smallest of 1/2, 1/4 and 1/8 of its size that is not below. This is several times
                faster: the decoder computes fewer coefficients of each block's cosine transform.
            part: top, left, bottom and right border of the part, as fractions of height and width;
                they are rounded to whole pixels.

        Raises:
            UnreadableImageError: damaged.
        """
        image = self._image
        with _as_unreadable(self._what, self.path):
            if least_size:
                height, width = least_size
                image.draft(None, (height, width) if self._turn in _SIDEWAYS else (width, height))
            image.load()
            if self._turn is not None:
                image = image.transpose(self._turn)
        return image if part is None else image.crop(_whole_pixels(part, image.size))

    def pixels(
        self,
        format: str,
        least_size: tuple[int, int] | None = None,
        part: tuple[float, float, float, float] | None = None,
        resized: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Decode as :meth:`decode` does, into the array that :func:`read_image` describes.

        Args:
            format: as in :func:`read_image`.
            least_size, part: as in :meth:`decode`.
            resized: height and width to which Pillow resizes, bilinearly and with antialiasing;
                None keeps the decoded size.
        """
        if format not in ("RGB", "BGR"):
            raise UserError(f"INPUT.FORMAT is {format!r}; expected RGB or BGR")
        image = self._rgb(self.decode(least_size, part))
        if resized:
            image = image.resize((resized[1], resized[0]), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        # A copy in both cases: Pillow's own array is not writable.
        return pixels.copy() if format == "RGB" else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)

    def _rgb(self, image: Image.Image) -> Image.Image:
        if image.mode == "F":
            raise _unreadable(
                "image", self.path, "its pixels are floating-point numbers of unknown range"
            )
        if image.mode != "I" and not image.mode.startswith("I;"):
            return _to_rgb(image, self.path)
        grey = np.asarray(image)
        if grey.min() < 0 or grey.max() > 65535:
            raise _unreadable("image", self.path, "its pixels are 32-bit integers of unknown range")
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")


def read_labels(path: str) -> np.ndarray:
    """Read a label image: one integer per pixel, unscaled; palette images give their indices.

    Returns:
        (H, W) int32.

    Raises:
        UnreadableImageError: missing or damaged.
        UserError: a colour, transparent or floating-point image.
    """
    image = _decode(path, "label image")
    if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
        raise UserError(
            f"label image {path} is of kind {image.mode}; expected one integer per pixel: a grey "
            "image of 8 or 16 bits or a palette image. Convert its colours to class indices"
        )
    return np.asarray(image).astype(np.int32)


def read_panoptic(path: str) -> np.ndarray:
    """Read a panoptic label image in COCO's coding: segment id = R + 256 G + 65536 B.

    Returns:
        (H, W) int32.

    Raises:
        UnreadableImageError: missing or damaged.
        UserError: not an image of 8-bit colours.
    """
    image = _decode(path, "panoptic label image")
    if image.mode not in ("1", "L", "P", "RGB", "RGBA"):
        raise UserError(
            f"panoptic label image {path} is of kind {image.mode}; expected 8-bit RGB with segment "
            "ids coded as R + 256 G + 65536 B"
        )
    # Pillow keeps four bytes per pixel; the fourth has no meaning.
    pixels = np.frombuffer(_to_rgb(image, path).tobytes("raw", "RGBX"), dtype="<i4")
    return (pixels & 0xFFFFFF).astype(np.int32, copy=False).reshape(image.height, image.width)


def _decode(path: str, what: str) -> Image.Image:
    """Open and decode a file, upright."""
    with _open(path, what) as image:
        return image.decode()


@contextmanager
def _open(path: str, what: str) -> Iterator[EncodedImage]:
    if isinstance(path, ImageInMemory):
        yield EncodedImage(path, path.image, what)
        return
    with ExitStack() as files:
        with _as_unreadable(what, path):
            file = files.enter_context(PathManager.open(path, "rb"))
            image = files.enter_context(Image.open(file))
        yield EncodedImage(path, image, what)


@contextmanager
def _as_unreadable(what: str, path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise _unreadable(what, path, _cause(error)) from error


def _whole_pixels(
    part: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Pillow's box (left, top, right, bottom) of a part, at least one pixel large."""
    top, left, bottom, right = part
    columns, rows = _interval(left, right, size[0]), _interval(top, bottom, size[1])
    return columns[0], rows[0], columns[1], rows[1]


def _interval(low: float, high: float, length: int) -> tuple[int, int]:
    start = min(round(low * length), length - 1)
    return start, max(round(high * length), start + 1)


def _cause(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image that Pillow knows"
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * Image.MAX_IMAGE_PIXELS
        return f"it has more than {limit} pixels, Pillow's limit against decompression bombs"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _orientation(image: Image.Image) -> object:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # as above; damaged EXIF data do not matter while the pixels are good
        return None


def _to_rgb(image: Image.Image, path: str) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode == "P":
        # Without the detour, Pillow warns where the palette has transparent colours.
        image = image.convert("RGBA")
    try:
        return image.convert("RGB")
    except ValueError as error:
        raise _unreadable("image", path, str(error)) from error


def _unreadable(what: str, path: str, cause: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"{what} {path} cannot be read: {' '.join(cause.split())}; "
        "replace it or take it out of the data set"
    )
