"""Mapper for instance segmentation: one mask per object, from polygons, run lengths or bitmaps."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np
from detectron2.data import transforms as T
from pycocotools import mask as coco_mask

from ddep.data.augmentation import transform_labels
from ddep.data.mapper_registry import register_mapper
from ddep.data.mappers.base import SegmentationMapper, check_classes
from ddep.data.record import Record
from ddep.errors import UserError


@register_mapper("mask_former_instance")
class InstanceMapper(SegmentationMapper):
    """Maps records with ``annotations``; crowds have no mask."""

    needs_labels: ClassVar[str | None] = "segm"

    def read_maps(self, record: Record, size: tuple[int, int]) -> dict[str, np.ndarray]:
        if "annotations" not in record:
            raise UserError(
                f"image {record['file_name']} has no instance annotations; "
                "choose another INPUT.DATASET_MAPPER_NAME or data set"
            )
        for annotation in record["annotations"]:
            check_mask_size(record["file_name"], annotation.get("segmentation"), size)
        return {}

    def objects(self, record: Record) -> tuple[list[dict[str, Any]], np.ndarray]:
        """The record's annotations without crowds, and their classes, (T,) int64.

        Raises:
            UserError: a class that the model does not have.
        """
        objects = [a for a in record["annotations"] if not a.get("iscrowd", 0)]
        classes = np.array([a["category_id"] for a in objects], dtype=np.int64)
        check_classes(record["file_name"], classes, self.num_classes, self.num_classes_key)
        return objects, classes

    def make_masks(
        self,
        record: Record,
        maps: dict[str, np.ndarray],
        transforms: T.TransformList,
        size: tuple[int, int],
    ) -> tuple[np.ndarray, np.ndarray]:
        objects, classes = self.objects(record)
        inside = transform_labels(transforms, np.ones(size, dtype=bool), fill=0)
        masks = np.zeros((len(objects), *inside.shape), dtype=bool)
        for mask, annotation in zip(masks, objects, strict=True):
            try:
                mask[:] = segmentation_to_mask(annotation.get("segmentation"), transforms, inside)
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"an annotation of {record['file_name']} cannot be turned into a mask: "
                    f"{error}; expected polygons, COCO run lengths or a bitmap"
                ) from error
        return classes, masks


@register_mapper("coco_instance_lsj")
class InstanceJitterMapper(InstanceMapper):
    """The same with large-scale jitter."""

    augmentation: ClassVar[str] = "large_scale_jitter"


def check_mask_size(path: str, segmentation: Any, size: tuple[int, int]) -> None:
    """Raise :class:`UserError` unless run lengths or a bitmap have their image's size."""
    found = segmentation.get("size") if isinstance(segmentation, dict) else size
    if isinstance(segmentation, np.ndarray):
        found = segmentation.shape
    if tuple(found or ()) != size:
        raise UserError(
            f"a mask in the annotation of {path} has (height, width) {found}, but the image has "
            f"{size}; they must have the same size"
        )


def segmentation_to_mask(
    segmentation: Any, transforms: T.TransformList, inside: np.ndarray
) -> np.ndarray:
    """Make the mask of one object in the augmented image.

    Polygons are transformed and drawn at the new size; bitmaps and run lengths are resampled.

    Args:
        segmentation: list of polygons [x0, y0, x1, y1, ...] in pixels of the original image, COCO
            run lengths (compressed or not), or an (H, W) bitmap.
        transforms: what the augmentations did to the image.
        inside: (H', W') bool, the pixels of the augmented image that are not padding.

    Returns:
        (H', W') bool.

    Raises:
        ValueError: another kind of segmentation.
    """
    if isinstance(segmentation, list):
        return _draw_polygons(segmentation, transforms, inside.shape) & inside
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            segmentation = coco_mask.frPyObjects(segmentation, *segmentation["size"])
        segmentation = _decode(segmentation)
    if not isinstance(segmentation, np.ndarray) or segmentation.ndim != 2:
        raise ValueError(f"its segmentation is a {type(segmentation).__name__}")
    return transform_labels(transforms, segmentation.astype(bool, copy=False), fill=0)


def _draw_polygons(
    polygons: list, transforms: T.TransformList, size: tuple[int, int]
) -> np.ndarray:
    moved = []
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"a polygon has {len(polygon)} numbers")
        # Crops only shift polygons: parts outside are not drawn, and padding is masked later.
        points = transforms.apply_coords(np.array(polygon, dtype=np.float64).reshape(-1, 2))
        moved.append(points.ravel().tolist())
    if not moved:
        return np.zeros(size, dtype=bool)
    return _decode(coco_mask.merge(coco_mask.frPyObjects(moved, *size)))


def _decode(run_lengths: dict[str, Any]) -> np.ndarray:
    """Decode to (H, W) bool, stored by rows: pycocotools' columns would slow down what follows."""
    return cv2.transpose(coco_mask.decode(run_lengths).T).view(bool)
