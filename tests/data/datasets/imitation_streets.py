"""Small imitations of further sets of street scenes, with images of 40 x 40 pixels.

Labels are upright stripes of ten columns each.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from tests.data.datasets.imitation_trees import SIDE, random_image, save


def stripes(values: Sequence[int], dtype: type[np.generic] = np.uint8) -> np.ndarray:
    """A label image (40, 40) with one upright stripe per value."""
    return np.repeat(np.array(values, dtype=dtype), SIDE // len(values))[None].repeat(SIDE, axis=0)


def write_gta5(root: Path) -> Path:
    """GTA5: images 1 and 5 to train, 2 and 3 in val, 4 in test. The label of 5 is smaller.

    Labels: road, car, a licence plate, the ego vehicle.
    """
    folder = root / "gta5"
    palette = np.random.default_rng(0).permutation(256).astype(np.uint8).repeat(3)
    for number in range(1, 6):
        labels = stripes([7, 26, 34, 1])
        label = Image.fromarray(labels if number < 5 else labels[:30])
        label.putpalette(palette.tobytes())
        save(folder / "images" / f"{number:05d}.png", random_image())
        (folder / "labels").mkdir(exist_ok=True)
        label.save(folder / "labels" / f"{number:05d}.png")
    splits = {"trainIds": [[1], [5]], "valIds": [[2], [3]], "testIds": [[4]]}
    savemat(folder / "split.mat", splits)
    return folder


def write_png_of_16_bits(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) as a PNG file of 16-bit colours, byte for byte: red comes first."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    height, width, _ = pixels.shape
    # Each row starts with the number of its filter, 0 for none.
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def write_synthia(root: Path) -> Path:
    """SYNTHIA-RAND-CITYSCAPES: two images. Labels: road, car, a lane marking, void.

    Red is the class, green an instance with a number that needs two bytes, blue is 0.
    """
    folder = root / "RAND_CITYSCAPES"
    labels = np.zeros((SIDE, SIDE, 3), dtype=np.uint16)
    labels[..., 0] = stripes([3, 8, 22, 0])
    labels[..., 1] = stripes([0, 300, 0, 0], np.uint16)
    for number in range(2):
        save(folder / "RGB" / f"{number:07d}.png", random_image())
        write_png_of_16_bits(folder / "GT" / "LABELS" / f"{number:07d}.png", labels)
    return folder


def write_bdd100k(root: Path) -> Path:
    """BDD100K: an image in train, two in val. Labels: road, car, bicycle, void."""
    folder = root / "bdd100k"
    for split, number in (("train", 1), ("val", 2)):
        for name in (f"0004a4c0-{index:08x}" for index in range(number)):
            save(folder / "images" / "10k" / split / f"{name}.jpg", random_image())
            masks = folder / "labels" / "sem_seg" / "masks" / split
            save(masks / f"{name}.png", stripes([0, 13, 18, 255]))
    return folder


def write_camvid(folder: Path) -> Path:
    """CamVid in SegNet's split: an image in train, two in val and in test.

    Labels: road, a car, sky, unlabelled.
    """
    for split, number in (("train", 1), ("val", 2), ("test", 2)):
        for index in range(number):
            save(folder / split / f"{index}.png", random_image())
            save(folder / f"{split}annot" / f"{index}.png", stripes([3, 8, 0, 11]))
    return folder
