"""A small data set of each kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_sem_seg
from PIL import Image
from pycocotools import mask as coco_mask

from ddep.data.datasets.catalog import register
from ddep.data.datasets.instances import register_instances
from ddep.data.datasets.panoptic import (
    Category,
    PanopticSplit,
    encode_panoptic,
    register_panoptic,
)

PANOPTIC, SEMANTIC, INSTANCES = (f"test_checked_{k}" for k in ("panoptic", "semantic", "instances"))
# The same files as data sets of DATASETS.CUSTOM.
OWN = {PANOPTIC: "own_panoptic", SEMANTIC: "own_semantic", INSTANCES: "own_instance"}
OWN_IMAGES = "own_images"
NAMES = ("a", "b", "c", "d")
CATEGORIES: list[Category] = [
    {"id": 3, "name": "sky", "isthing": 0, "color": [0, 128, 255]},
    {"id": 7, "name": "cat", "isthing": 1, "color": [255, 128, 0]},
    {"id": 9, "name": "sea", "isthing": 0, "color": [0, 0, 128]},
]
HEIGHT, WIDTH = 16, 24
CAT = 70_000  # needs red, green and blue


class Tree:
    """Four images of 24 x 16 pixels: sky on the left, a cat on the right, nothing in the top row.

    In image d the cat is a crowd.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.split = PanopticSplit.below(folder, "train")
        self.instances_json = folder / "instances_train.json"
        images, labels = str(self.split.image_root), str(self.split.sem_seg_root)
        register_panoptic(PANOPTIC, self.split, CATEGORIES)
        register(
            SEMANTIC,
            lambda: load_sem_seg(labels, images, "png", "png"),
            image_root=images,
            sem_seg_root=labels,
            stuff_classes=[category["name"] for category in CATEGORIES],
            stuff_colors=[category["color"] for category in CATEGORIES],
            evaluator_type="sem_seg",
            ignore_label=255,
        )
        register_instances(INSTANCES, self.split.image_root, self.instances_json, CATEGORIES[1:2])
        self._write()

    def custom(self) -> list[dict[str, Any]]:
        """The same data sets as entries of DATASETS.CUSTOM."""
        split = self.split
        folders = {"images": str(split.image_root), "labels": str(split.sem_seg_root)}
        return [
            {"name": OWN[PANOPTIC], "kind": "panoptic", "images": folders["images"]}
            | {"labels": str(split.panoptic_root), "json": str(split.panoptic_json)}
            | {"semantic_labels": folders["labels"]},
            {"name": OWN[SEMANTIC], "kind": "semantic", **folders}
            | {"classes": [category["name"] for category in CATEGORIES]},
            {"name": OWN[INSTANCES], "kind": "instance", "images": folders["images"]}
            | {"json": str(self.instances_json)},
            {"name": OWN_IMAGES, "kind": "images", "images": folders["images"]},
        ]

    def _write(self) -> None:
        ids = np.full((HEIGHT, WIDTH), 1)
        ids[:, WIDTH // 2 :] = CAT
        ids[0] = 0
        images, annotations, instances = [], [], []
        for number, name in enumerate(NAMES):
            pixels = np.full((HEIGHT, WIDTH, 3), (10, 20, 30 + number), dtype=np.uint8)
            self.save(self.image(name), pixels)
            self.save(self.panoptic(name), encode_panoptic(ids))
            classes = np.select([ids == 1, ids == CAT], [0, 1], 255).astype(np.uint8)
            self.save(self.semantic(name), classes)
            image = {"id": number, "file_name": f"{name}.png", "height": HEIGHT, "width": WIDTH}
            images.append(image)
            segments = [
                {"id": 1, "category_id": 3, "area": 180, "bbox": [0, 1, 12, 15], "iscrowd": 0},
                {"id": CAT, "category_id": 7, "area": 180, "bbox": [12, 1, 12, 15], "iscrowd": 0},
            ]
            segments[1]["iscrowd"] = int(name == "d")
            annotations.append(
                {"image_id": number, "file_name": f"{name}.png", "segments_info": segments}
            )
            instances.append(
                {
                    "id": number + 1,
                    "image_id": number,
                    "category_id": 7,
                    "bbox": [12, 1, 12, 15],
                    "area": 180,
                    "iscrowd": 0,
                    "segmentation": run_lengths(ids == CAT),
                }
            )
        for path, entries, categories in (
            (self.split.panoptic_json, annotations, CATEGORIES),
            (self.instances_json, instances, CATEGORIES[1:2]),
        ):
            content = {"images": images, "annotations": entries, "categories": categories}
            path.write_text(json.dumps(content))

    def unregister(self) -> None:
        for name in (*OWN, *OWN.values(), OWN_IMAGES):
            DatasetCatalog.pop(name, None)
            MetadataCatalog.pop(name, None)

    def image(self, name: str) -> Path:
        return self.split.image_root / f"{name}.png"

    def panoptic(self, name: str) -> Path:
        return self.split.panoptic_root / f"{name}.png"

    def semantic(self, name: str) -> Path:
        return self.split.sem_seg_root / f"{name}.png"

    def save(self, path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
