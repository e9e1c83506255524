"""Mapper for semantic segmentation: one mask per class in an image."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from detectron2.data import transforms as T

from ddep.data.image_reader import read_labels
from ddep.data.mapper_registry import register_mapper
from ddep.data.mappers.base import (
    SegmentationMapper,
    check_label_size,
    distinct,
    shorten,
)
from ddep.data.record import Record
from ddep.errors import UserError


@register_mapper("mask_former_semantic")
class SemanticMapper(SegmentationMapper):
    """Maps records with ``sem_seg_file_name``; samples have ``sem_seg`` and a mask per class."""

    needs_labels: ClassVar[str | None] = "sem_seg"

    def read_maps(self, record: Record, size: tuple[int, int]) -> dict[str, np.ndarray]:
        if "sem_seg_file_name" not in record:
            raise UserError(
                f"image {record['file_name']} has no semantic labels (sem_seg_file_name); "
                "choose another INPUT.DATASET_MAPPER_NAME or data set"
            )
        path = record["sem_seg_file_name"]
        return {"sem_seg": read_semantic(path, size, self.num_classes, self.ignore_label)}

    def make_masks(
        self,
        record: Record,
        maps: dict[str, np.ndarray],
        transforms: T.TransformList,
        size: tuple[int, int],
    ) -> tuple[np.ndarray, np.ndarray]:
        classes = distinct(maps["sem_seg"])
        classes = classes[classes != self.ignore_label]
        return classes, maps["sem_seg"] == classes[:, None, None]


def read_semantic(
    path: str, size: tuple[int, int], num_classes: int, ignore_label: int
) -> np.ndarray:
    """Read a semantic label image, (H, W) int32, and check its size and its classes.

    Raises:
        UnreadableImageError: missing or damaged.
        UserError: not a label image, another size than its image's, classes out of range.
    """
    labels = read_labels(path)
    check_label_size(path, labels, size)
    ids = distinct(labels)
    wrong = ids[((ids < 0) | (ids >= num_classes)) & (ids != ignore_label)]
    if len(wrong):
        raise UserError(
            f"label image {path} has the ids {shorten(wrong)}; expected 0 to "
            f"{num_classes - 1}, or {ignore_label} to ignore: correct the labels or set "
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
        )
    return labels
