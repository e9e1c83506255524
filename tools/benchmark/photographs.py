"""Images to read: generated ones, as expensive to decode as photographs, with labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ddep.data.datasets.image_folder import find_images
from ddep.data.record import Record

NUM_CLASSES = 20
_BACKGROUNDS, _OBJECTS = 6, 12
# Standard deviation of a camera's noise in grey levels. It makes files as large as photographs:
# 80 kB for 500x375 pixels and 1.2 MB for 2000x1500.
_GRAIN = 12


def make_photographs(folder: Path, width: int, height: int, count: int) -> list[Record]:
    """Write JPEG files of quality 90 with semantic, panoptic and instance labels.

    A photograph is noise of all scales under polygons of one colour each; the labels are six
    vertical bands, and twelve of these polygons as objects.

    Args:
        folder: an existing folder.
        width, height: in pixels.
        count: number of photographs; each has its own seed.

    Returns:
        Records with the labels of all segmentation tasks.
    """
    records = []
    for index in range(count):
        rng = np.random.default_rng(index)
        polygons = [_polygon(rng, width, height) for _ in range(_OBJECTS)]
        path = folder / f"{width}x{height}_{index}.jpg"
        Image.fromarray(_pixels(rng, width, height, polygons)).save(path, quality=90)
        records.append({"file_name": str(path), **_labels(path, width, height, polygons)})
    return records


def find_photographs(folder: Path, count: int) -> list[Record]:
    """Make records without labels for the first images in a folder.

    Raises:
        UserError: there is no such folder, or it has no images.
    """
    return [{"file_name": path} for path in find_images(folder)[:count]]


def _polygon(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """(24, 2) int32: corners around a random centre."""
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    radii = height * rng.uniform(0.04, 0.2) * rng.uniform(0.8, 1.2, 24)
    centre = rng.uniform((0, 0), (width, height))
    corners = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.clip(corners, 0, (width - 1, height - 1)).astype(np.int32)


def _pixels(
    rng: np.random.Generator, width: int, height: int, polygons: list[np.ndarray]
) -> np.ndarray:
    image = np.full((height, width, 3), 128, np.float32)
    for scale in (4, 8, 16, 32, 64, 128, 256):
        grid = rng.standard_normal((height // scale + 3, width // scale + 3, 3), np.float32)
        image += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 2 * scale**0.6
    for polygon in polygons:
        cv2.fillPoly(image, [polygon], rng.uniform(0, 255, 3).tolist())
    image += _GRAIN * rng.standard_normal(image.shape, np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def _labels(path: Path, width: int, height: int, polygons: list[np.ndarray]) -> Record:
    bands = np.arange(width, dtype=np.int32) * _BACKGROUNDS // width
    segments = np.repeat(bands[None] + 1, height, axis=0)
    for number, polygon in enumerate(polygons, start=_BACKGROUNDS + 1):
        cv2.fillPoly(segments, [polygon], number)
    classes = np.arange(-1, NUM_CLASSES)
    semantic, panoptic = path.with_suffix(".semantic.png"), path.with_suffix(".panoptic.png")
    Image.fromarray(classes[segments].astype(np.uint8)).save(semantic)
    coded = np.stack([segments, np.zeros_like(segments), np.zeros_like(segments)], 2)
    Image.fromarray(coded.astype(np.uint8)).save(panoptic)
    return {
        "height": height,
        "width": width,
        "sem_seg_file_name": str(semantic),
        "pan_seg_file_name": str(panoptic),
        "segments_info": [
            {"id": int(number), "category_id": int(number) - 1} for number in np.unique(segments)
        ],
        "annotations": [
            {"category_id": _BACKGROUNDS + index, "segmentation": [polygon.ravel().tolist()]}
            for index, polygon in enumerate(polygons)
        ],
    }
