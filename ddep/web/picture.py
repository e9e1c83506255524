"""The picture on the page: segments over the image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ddep.web.segments import NOTHING, Segment

# Sides of pictures: smaller ones are enlarged by a whole number, larger ones are reduced.
SMALLEST, LARGEST = 640, 1280
# How much of a segment's colour is in its pixels, and how much while another one is selected.
_OPACITY, _OPACITY_OF_OTHERS = 0.5, 0.15
_WHITE = (255, 255, 255)


def picture_size(size: tuple[int, int]) -> tuple[int, int]:
    """The height and width that an image of height and width ``size`` is shown at."""
    height, width = size
    longer = max(size)
    if longer > LARGEST:
        return max(1, round(height * LARGEST / longer)), max(1, round(width * LARGEST / longer))
    scale = -(-SMALLEST // longer)
    return height * scale, width * scale


def pixel_at(
    x: float, y: float, size: tuple[int, int], result_size: tuple[int, int]
) -> tuple[int, int]:
    """Row and column of the pixel of a result under a place in the picture.

    Args:
        x, y: in pixels of the picture, from its left and its top.
        size: height and width of the image that the picture shows.
        result_size: height and width of the result.
    """
    (rows, columns), (height, width) = result_size, picture_size(size)
    return min(int(y * rows / height), rows - 1), min(int(x * columns / width), columns - 1)


def draw_segments(
    image: np.ndarray,
    seen: np.ndarray,
    segments: Sequence[Segment],
    *,
    selected: int = NOTHING,
    filled: bool = True,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Draw segments in the colours of their classes, with outlines.

    Args:
        image: (H, W, 3) uint8, RGB.
        seen: (h, w) int32, positions in ``segments`` or NOTHING, of any size.
        segments: what they are.
        selected: position of a segment that stands out, or NOTHING.
        filled: whether to draw more than outlines.
        size: height and width of the picture; None is the image's.

    Returns:
        (*size, 3) uint8, RGB.
    """
    size = size or image.shape[:2]
    picture = _resize(image, size)
    seen = cv2.resize(seen, size[::-1], interpolation=cv2.INTER_NEAREST)
    colours = np.array([*(segment.colour for segment in segments), (0, 0, 0)], dtype=np.float32)
    opacity = np.zeros(len(segments) + 1, dtype=np.float32)
    if filled:
        opacity[:-1] = _OPACITY if selected == NOTHING else _OPACITY_OF_OTHERS
    opacity[selected if selected != NOTHING else -1] = 0 if selected == NOTHING else _OPACITY
    weight = opacity[seen][..., None]
    picture = (picture * (1 - weight) + colours[seen] * weight).round().astype(np.uint8)
    thickness = max(1, round(max(size) / 640))
    edge = _edges(seen, thickness) & (seen != NOTHING)
    picture[edge] = (0.7 * colours[seen[edge]]).astype(np.uint8)
    if selected != NOTHING:
        picture[_edges((seen == selected).astype(np.int32), 2 * thickness)] = _WHITE
    return picture


def _resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    smaller = size[0] < image.shape[0]
    method = cv2.INTER_AREA if smaller else cv2.INTER_NEAREST
    return cv2.resize(image, size[::-1], interpolation=method)


def _edges(labels: np.ndarray, thickness: int) -> np.ndarray:
    """(H, W) bool: pixels near to which another label begins."""
    kernel = np.ones((thickness + 1, thickness + 1), dtype=np.uint8)
    values = labels.astype(np.float32)  # OpenCV compares no 32-bit integers
    return cv2.dilate(values, kernel) != cv2.erode(values, kernel)
