"""Small imitations of data sets as distributed, with images of 40 x 40 pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 40
# Split, folder, number of images.
SPLITS = (("train", "training", 1), ("val", "validation", 2))


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write (H, W) or (H, W, 3) uint8, or (H, W) uint16, as an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def random_image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)


def write_ade20k(root: Path) -> Path:
    """ADEChallengeData2016 with ``annotations_instance``; an image in training, two in validation.

    Labels, from left to right, ten columns each: sky, bed, unlabelled, bed. The first bed is two
    instances, one above the other; the second bed has none. The lower instance is wider by two
    columns, over the sky.
    """
    folder = root / "ADEChallengeData2016"
    labels = np.repeat(np.array([3, 8, 0, 8], dtype=np.uint8), 10)[None].repeat(SIDE, axis=0)
    instances = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    instances[:20, 10:20] = (1, 1, 0)
    instances[20:, 8:20] = (1, 2, 0)
    for split, subfolder, number in SPLITS:
        for name in (f"ADE_{split}_{index:08d}" for index in range(number)):
            save(folder / "images" / subfolder / f"{name}.jpg", random_image())
            save(folder / "annotations" / subfolder / f"{name}.png", labels)
            save(folder / "annotations_instance" / subfolder / f"{name}.png", instances)
    return folder


def write_ade20k_full(root: Path) -> Path:
    """ADE20K_2021_17_01 with two images in each split, one of them to train on a video's frame.

    Labels, from left to right, ten columns each: wall, sky, the last of the 847 classes and one
    that is none of them. Blue, the number of the instance, varies.
    """
    folder = root / "ADE20K_2021_17_01"
    numbers = (2978, 2420, 3148, 1)
    colours = np.array([[n // 256 * 10, n % 256, n % 7] for n in numbers], dtype=np.uint8)
    labels = np.repeat(colours, 10, axis=0)[None].repeat(SIDE, axis=0)
    for name in ("train_00000000", "frame_00000000", "val_00000000", "val_00000001"):
        scene = "validation/home" if name.startswith("val") else "training/urban/street"
        path = folder / "images" / "ADE" / scene / f"ADE_{name}.jpg"
        save(path, random_image())
        save(path.with_name(f"{path.stem}_seg.png"), labels)
    return folder


def write_cityscapes(root: Path) -> Path:
    """Cityscapes: an image in train, two in val.

    Label images, from left to right, ten columns each: road, car number 1, a group of cars, and a
    caravan, which is not evaluated.
    """
    folder = root / "cityscapes"
    ids = np.repeat(np.array([7, 26001, 26, 29000], dtype=np.uint16), 10)[None].repeat(SIDE, axis=0)
    for split, _, number in SPLITS:
        for name in (f"bonn_{index:06d}_000019" for index in range(number)):
            save(
                folder / "leftImg8bit" / split / "bonn" / f"{name}_leftImg8bit.png", random_image()
            )
            labels = folder / "gtFine" / split / "bonn"
            save(labels / f"{name}_gtFine_instanceIds.png", ids)
            save(labels / f"{name}_gtFine_labelIds.png", np.zeros((SIDE, SIDE), dtype=np.uint8))
            size = {"imgHeight": SIDE, "imgWidth": SIDE, "objects": []}
            (labels / f"{name}_gtFine_polygons.json").write_text(json.dumps(size))
    return folder


def write_mapillary_vistas(root: Path) -> Path:
    """Mapillary Vistas v1.2: an image in training, two in validation.

    Labels, from left to right: 20 columns of sky, ten of a car, ten unlabelled. Segment ids need
    more than one byte.
    """
    folder = root / "mapillary_vistas"
    labels = np.repeat(np.array([27, 27, 55, 65], dtype=np.uint8), 10)[None].repeat(SIDE, axis=0)
    colours = np.array([[28, 1, 0], [28, 1, 0], [0, 56, 1], [0, 0, 0]], dtype=np.uint8)
    panoptic = np.repeat(colours, 10, axis=0)[None].repeat(SIDE, axis=0)
    segments = [
        {"id": 28 + 256, "category_id": 28, "area": 800, "bbox": [0, 0, 20, 40], "iscrowd": 0},
        {
            "id": 56 * 256 + 65536,
            "category_id": 56,
            "area": 400,
            "bbox": [20, 0, 10, 40],
            "iscrowd": 0,
        },
    ]
    for split, subfolder, number in SPLITS:
        names = [f"{split}_{index}" for index in range(number)]
        for name in names:
            save(folder / subfolder / "images" / f"{name}.jpg", random_image())
            save(folder / subfolder / "labels" / f"{name}.png", labels)
            save(folder / subfolder / "panoptic" / f"{name}.png", panoptic)
        content = {
            "images": [
                {"id": name, "file_name": f"{name}.png", "height": SIDE, "width": SIDE}
                for name in names
            ],
            "annotations": [
                {"image_id": name, "file_name": f"{name}.png", "segments_info": segments}
                for name in names
            ],
            "categories": [
                {"id": i, "name": f"class {i}", "isthing": int(i == 56)} for i in range(1, 67)
            ],
        }
        (folder / subfolder / "panoptic" / "panoptic_2018.json").write_text(json.dumps(content))
    return folder
