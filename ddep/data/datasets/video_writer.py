"""Write the JSON file of a prepared video data set, in YouTube-VIS's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddep.data.datasets.instances import describe_mask
from ddep.data.datasets.panoptic import Category
from ddep.data.datasets.preparation import write_json


class VideoWriter:
    """Collects the annotations of one split's videos, and writes them last."""

    def __init__(self, json_file: Path, categories: Sequence[Category]) -> None:
        """
        Args:
            json_file: to be written; an old one is removed.
            categories: the classes.
        """
        self.json_file = json_file
        self.categories = list(categories)
        self.videos: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        json_file.unlink(missing_ok=True)

    def add(
        self, file_names: Sequence[str], tracks: np.ndarray, category_ids: Mapping[int, int]
    ) -> None:
        """Add the annotations of one video.

        Args:
            file_names: its T frames, relative to the folder of all frames.
            tracks: (T, H, W) integers, the number of the object that each pixel shows, 0 for none.
            category_ids: category id of each object, by its number.
        """
        length, height, width = tracks.shape
        size = {"height": height, "width": width, "length": length}
        video_id = len(self.videos) + 1
        self.videos.append({"id": video_id, "file_names": list(file_names), **size})
        for number, category_id in category_ids.items():
            frames = [describe_mask(mask) if mask.any() else {} for mask in tracks == number]
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "video_id": video_id,
                    "category_id": category_id,
                    "iscrowd": 0,
                    **size,
                    "segmentations": [frame.get("segmentation") for frame in frames],
                    "areas": [frame.get("area") for frame in frames],
                    "bboxes": [frame.get("bbox") for frame in frames],
                }
            )

    def finish(self) -> None:
        """Write the JSON file, which makes the split complete."""
        content = {
            "videos": self.videos,
            "annotations": self.annotations,
            "categories": self.categories,
        }
        write_json(self.json_file, content)
