"""Draw random sizes and crops before an image is decoded, to decode less of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.data import transforms as T
from PIL import Image

from ddep.data.clip_augmentation import AlikeInClip
from ddep.data.image_reader import EncodedImage

_RESIZING = (T.ResizeShortestEdge, T.ResizeScale)


@dataclass(frozen=True)
class Window:
    """A rectangle of a resized image, in its pixels.

    Attributes:
        whole: height and width that the whole image is resized to.
        top, left: the rectangle's upper left corner.
        size: height and width of the rectangle.
    """

    whole: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]

    @property
    def part(self) -> tuple[float, float, float, float]:
        """Top, left, bottom and right border as fractions of the image."""
        (height, width), (rows, columns) = self.whole, self.size
        return (
            self.top / height,
            self.left / width,
            (self.top + rows) / height,
            (self.left + columns) / width,
        )


@dataclass(frozen=True)
class ResizedCrop:
    """A rectangle of an image that is cut out first and resized afterwards.

    Attributes:
        top, left, height, width: the rectangle, in pixels of the image.
        image_size: height and width of the image.
        size: height and width that the rectangle is resized to.
    """

    top: int
    left: int
    height: int
    width: int
    image_size: tuple[int, int]
    size: tuple[int, int]

    @property
    def whole(self) -> tuple[int, int]:
        """Height and width of the whole image at the crop's scale, rounded up."""
        (height, width), (rows, columns) = self.image_size, self.size
        return -(-height * rows // self.height), -(-width * columns // self.width)

    @property
    def part(self) -> tuple[float, float, float, float]:
        """Top, left, bottom and right border as fractions of the image."""
        height, width = self.image_size
        return (
            self.top / height,
            self.left / width,
            (self.top + self.height) / height,
            (self.left + self.width) / width,
        )


def draw_window(
    augmentations: Sequence[T.Augmentation], size: tuple[int, int]
) -> tuple[Window, Sequence[T.Augmentation]]:
    """Draw the resizing and the crop that a list of augmentations begins with.

    They depend only on the image's size and can be drawn before it is decoded. The random numbers
    are those that the augmentations would draw, in their order.

    Args:
        augmentations: in their order.
        size: height and width of the image.

    Returns:
        The window, and the augmentations that are left.
    """
    resizing, rest = draw_resizing(augmentations, size)
    whole = (resizing[0].new_h, resizing[0].new_w) if resizing else size
    window = Window(whole, 0, 0, whole)
    if rest and type(rest[0]) is T.RandomCrop:
        crop = rest.pop(0).get_transform(_placeholder(window.whole))
        window = Window(window.whole, crop.y0, crop.x0, (crop.h, crop.w))
    return window, rest


def draw_resizing(
    augmentations: Sequence[T.Augmentation], size: tuple[int, int]
) -> tuple[list[T.ResizeTransform], list[T.Augmentation]]:
    """Draw the resizing, if a list of augmentations begins with a bilinear one.

    Returns:
        At most one transform, and the augmentations that are left.
    """
    rest = list(augmentations)
    first = rest[0] if rest else None
    if isinstance(first, AlikeInClip):
        first = first.augmentation
    if not isinstance(first, _RESIZING):
        return [], rest
    if first.interp != Image.Resampling.BILINEAR:
        return [], rest
    resize = rest.pop(0).get_transform(_placeholder(size))
    return [resize] if isinstance(resize, T.ResizeTransform) else [], rest


def _placeholder(size: tuple[int, int]) -> np.ndarray:
    """An image of this size that takes no memory."""
    return np.broadcast_to(np.uint8(0), (*size, 3))


def read_window(
    image: EncodedImage, window: Window | ResizedCrop, format: str, draft: bool
) -> np.ndarray:
    """Decode and resize the part of an image in a window.

    The window is first cut out of the decoded image, with borders rounded to its whole pixels, then
    resized in integers, bilinearly and with antialiasing. For a window of the whole image and
    without ``draft``, this is Pillow's ``resize`` up to one grey level.

    Args:
        image: not decoded yet.
        window: the part to read.
        format: order of the channels, ``"RGB"`` or ``"BGR"``.
        draft: let the decoder shrink JPEG files; see :meth:`EncodedImage.decode`.

    Returns:
        (H, W, 3) uint8 of the window's size.

    Raises:
        UnreadableImageError: damaged.
    """
    pixels = image.pixels(format, window.whole if draft else None, window.part)
    if pixels.shape[:2] == window.size:
        return pixels
    # PyTorch's uint8 kernel is several times faster than Pillow's in the channels-last layout.
    batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(batch, window.size, mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized.permute(0, 2, 3, 1)[0].numpy())
