"""Small imitations of sets of photographs, with images of 40 x 40 pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from pycocotools import mask as coco_mask
from scipy.io import savemat

from tests.data.datasets.imitation_streets import stripes
from tests.data.datasets.imitation_trees import SIDE, random_image, save


def write_coco(root: Path) -> Path:
    """COCO 2017: an image in train, two in val.

    From left to right, ten columns each: two people, a rug, void.
    """
    folder = root / "coco"
    (folder / "annotations").mkdir(parents=True)
    ids = stripes([1 + 256, 2 + 65536, 3, 0], np.int32)
    panoptic = np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)
    for split, number in (("train", 1), ("val", 2)):
        images, annotations, objects = [], [], []
        for index in range(1, number + 1):
            name = f"{index:012d}"
            save(folder / f"{split}2017" / f"{name}.jpg", random_image())
            save(folder / f"panoptic_{split}2017" / f"{name}.png", panoptic)
            size = {"height": SIDE, "width": SIDE}
            images.append({"id": index, "file_name": f"{name}.jpg", **size})
            segments = [
                {"id": segment, "category_id": category, **_box(ids == segment)}
                for segment, category in ((257, 1), (65538, 1), (3, 200))
            ]
            annotations.append(
                {"image_id": index, "file_name": f"{name}.png", "segments_info": segments}
            )
            for segment in segments[:2]:
                encoded = coco_mask.encode(np.asfortranarray(ids == segment["id"], np.uint8))
                mask = {"size": encoded["size"], "counts": encoded["counts"].decode()}
                entry = {**segment, "id": len(objects) + 1, "image_id": index}
                objects.append({**entry, "segmentation": mask})
        for kind, content, categories in (
            ("panoptic", annotations, COCO_CATEGORIES),
            ("instances", objects, [c for c in COCO_CATEGORIES if c["isthing"]]),
        ):
            path = folder / "annotations" / f"{kind}_{split}2017.json"
            path.write_text(
                json.dumps({"images": images, "annotations": content, "categories": categories})
            )
    return folder


def _box(mask: np.ndarray) -> dict[str, Any]:
    """The keys of an upright stripe in COCO's files."""
    left = int(mask[0].argmax())
    width = int(mask[0].sum())
    return {"area": int(mask.sum()), "bbox": [left, 0, width, SIDE], "iscrowd": 0}


def write_pascal_context(root: Path) -> Path:
    """VOC2010 with the original labels: an image in train, two in val, and one without a label.

    Labels: aeroplane, wood (the last of the 59), accordion (none of them), 0.
    """
    folder = root / "VOCdevkit" / "VOC2010"
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (folder / "trainval").mkdir()
    for split, names in (("train", ["2008_000002"]), ("val", ["2008_000003", "2008_000007"])):
        for name in names:
            save(folder / "JPEGImages" / f"{name}.jpg", random_image())
            labels = stripes([2, 458, 1, 0], np.uint16)
            savemat(folder / "trainval" / f"{name}.mat", {"LabelMap": labels})
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    save(folder / "JPEGImages" / "2010_000001.jpg", random_image())
    return folder


def write_penn_fudan(folder: Path) -> Path:
    """Penn-Fudan: ten images, two people in each."""
    for index in range(10):
        save(folder / "PNGImages" / f"FudanPed{index:05d}.png", random_image())
        masks = stripes([0, 1, 0, 2])
        save(folder / "PedMasks" / f"FudanPed{index:05d}_mask.png", masks)
    return folder
