"""A small data set of videos, in YouTube-VIS's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ddep.data.datasets.panoptic import Category
from ddep.data.datasets.video import load_videos

CATEGORIES: list[Category] = [
    {"id": 4, "name": "cat", "isthing": 1, "color": [1, 2, 3]},
    {"id": 9, "name": "dog", "isthing": 1, "color": [4, 5, 6]},
]
HEIGHT, WIDTH = 6, 8
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[1:3, 2:7] = 1
BOX, AREA = [2.0, 1.0, 5.0, 2.0], 10
POLYGON = [[2, 1, 7, 1, 7, 3, 2, 3]]
COMPRESSED = coco_mask.encode(np.asfortranarray(MASK))
COMPRESSED["counts"] = COMPRESSED["counts"].decode()
COUNTS = {"size": [HEIGHT, WIDTH], "counts": [13, 2, 4, 2, 4, 2, 4, 2, 4, 2, 9]}


def content() -> dict[str, Any]:
    """Two videos, of three frames and of one; the first shows a cat and a dog."""
    size = {"height": HEIGHT, "width": WIDTH}
    return {
        "videos": [
            {"id": 5, "file_names": [f"a/{i}.png" for i in range(3)], "length": 3, **size},
            {"id": 2, "file_names": ["b/0.png"], **size},
        ],
        "annotations": [
            {"id": 1, "video_id": 5, "category_id": 9, "segmentations": [COMPRESSED, None, COUNTS]},
            {
                "id": 7,
                "video_id": 5,
                "category_id": 4,
                "iscrowd": 1,
                "segmentations": [None, POLYGON, []],
                "bboxes": [None, [2, 1, 5, 2], None],
                "areas": [None, 11, None],
            },
        ],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat", "supercategory": "pet"}],
    }


class Videos:
    """The files of the data set."""

    def __init__(self, folder: Path) -> None:
        self.images, self.json = folder / "frames", folder / "train.json"
        for name in ("a/0.png", "a/1.png", "a/2.png", "b/0.png"):
            (self.images / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (WIDTH, HEIGHT)).save(self.images / name)
        self.content = content()

    def write(self) -> None:
        self.json.write_text(json.dumps(self.content))

    def load(self, *, labelled: bool = True) -> list[dict[str, Any]]:
        self.write()
        return load_videos(self.images, self.json, CATEGORIES, labelled=labelled)

    def custom(self, **changes: Any) -> list[dict[str, Any]]:
        entry = {"name": "own_video", "kind": "video"}
        return [entry | {"images": str(self.images), "json": str(self.json)} | changes]
