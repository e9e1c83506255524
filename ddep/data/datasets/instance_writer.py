"""Write the instance annotations of a split in COCO's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddep.data.datasets.instances import describe_mask
from ddep.data.datasets.panoptic import Category
from ddep.data.datasets.preparation import write_json


class InstanceWriter:
    """Collects the things of one split's images, and writes their JSON file last."""

    def __init__(self, json_file: Path, categories: Sequence[Category]) -> None:
        """
        Args:
            json_file: removed now and written by :meth:`finish`.
            categories: the classes of things; objects of other classes are left out.
        """
        self.json_file = json_file
        self.categories = list(categories)
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        json_file.unlink(missing_ok=True)

    def add(
        self, image: dict[str, Any], segments: np.ndarray, category_ids: Mapping[int, int]
    ) -> None:
        """Describe the things of one image.

        Args:
            image: its entry in the file: id, file_name, height and width.
            segments: (H, W) integers, segment ids.
            category_ids: category id of each segment id.
        """
        self.images.append(image)
        things = {category["id"] for category in self.categories}
        for segment, category_id in category_ids.items():
            if category_id in things:
                self.annotations.append(
                    {
                        "id": len(self.annotations) + 1,
                        "image_id": image["id"],
                        "category_id": category_id,
                        "iscrowd": 0,
                        **describe_mask(segments == segment),
                    }
                )

    def finish(self) -> None:
        """Write the JSON file."""
        content = {"images": self.images, "annotations": self.annotations}
        write_json(self.json_file, {**content, "categories": self.categories})
