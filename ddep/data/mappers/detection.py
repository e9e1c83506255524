"""Mapper for object detection: boxes and, if the model predicts them, masks."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks

from ddep.data.mapper_registry import register_mapper
from ddep.data.mappers.instance import InstanceMapper
from ddep.data.record import Record
from ddep.errors import UserError

# INPUT.MASK_FORMAT
_MASK_FORMATS = ("polygon", "bitmask")
# As in detectron2: a box with a side that is not longer is empty.
_SMALLEST_SIDE = 1e-5


@register_mapper("detection")
class DetectionMapper(InstanceMapper):
    """Maps records with ``annotations`` for detectron2's own detectors, as its own mapper does.

    ``instances`` has ``gt_boxes`` (:class:`Boxes`, absolute XYXY), ``gt_classes`` (T,) int64 and,
    if masks are requested, ``gt_masks`` (:class:`BitMasks` or :class:`PolygonMasks`). Boxes are the
    annotated ones, transformed with the image; after a crop they enclose the rest of the masks
    tightly, if there are masks. Crowds and empty boxes and masks are left out.
    """

    needs_labels: ClassVar[str | None] = "bbox"
    num_classes_key: ClassVar = "MODEL.ROI_HEADS.NUM_CLASSES"

    @configurable
    def __init__(self, *, mask_format: str | None, boxes_from_masks: bool, **kwargs: Any) -> None:
        """
        Args:
            mask_format: polygon or bitmask; None for no masks.
            boxes_from_masks: whether to compute boxes from the augmented masks.
            kwargs: see :class:`SegmentationMapper`.
        """
        super().__init__(**kwargs)
        self.mask_format = mask_format
        self.boxes_from_masks = boxes_from_masks

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        mask_format = cfg.INPUT.MASK_FORMAT if cfg.MODEL.MASK_ON else None
        if mask_format not in (None, *_MASK_FORMATS):
            raise UserError(
                f"INPUT.MASK_FORMAT is {mask_format!r}; expected {' or '.join(_MASK_FORMATS)}"
            )
        return {
            **super().from_config(cfg, is_train),
            "mask_format": mask_format,
            "boxes_from_masks": cfg.MODEL.MASK_ON and cfg.INPUT.CROP.ENABLED,
        }

    def make_instances(
        self,
        record: Record,
        maps: dict[str, np.ndarray],
        transforms: T.TransformList,
        size: tuple[int, int],
        augmented_size: tuple[int, int],
    ) -> Instances:
        objects, classes = self.objects(record)
        instances = Instances(augmented_size)
        instances.gt_classes = torch.from_numpy(classes)
        instances.gt_boxes = Boxes(self._boxes(record, objects, transforms, augmented_size))
        is_shown = torch.ones(len(objects), dtype=torch.bool)
        if self.mask_format == "polygon":
            instances.gt_masks = self._polygons(record, objects, transforms)
            is_shown = instances.gt_masks.nonempty()
        if self.mask_format == "bitmask" or self.boxes_from_masks:
            _, masks = self.make_masks(record, maps, transforms, size)
            drawn = BitMasks(torch.from_numpy(masks))
            is_shown = drawn.nonempty()
            if self.mask_format == "bitmask":
                instances.gt_masks = drawn
            if self.boxes_from_masks:
                instances.gt_boxes = drawn.get_bounding_boxes()
        return instances[is_shown & instances.gt_boxes.nonempty(_SMALLEST_SIDE)]

    def _boxes(
        self,
        record: Record,
        objects: list[dict[str, Any]],
        transforms: T.TransformList,
        augmented_size: tuple[int, int],
    ) -> torch.Tensor:
        """The boxes in the augmented image, (T, 4) float32, clipped to it."""
        boxes = np.zeros((len(objects), 4))
        for box, annotation in zip(boxes, objects, strict=True):
            try:
                box[:] = BoxMode.convert(
                    annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS
                )
            except (AssertionError, KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"an annotation of {record['file_name']} has no box ({type(error).__name__}: "
                    f"{error}); expected bbox, four numbers, and bbox_mode"
                ) from error
        height, width = augmented_size
        moved = transforms.apply_box(boxes).reshape(-1, 4).clip(min=0)
        return torch.from_numpy(np.minimum(moved, [width, height] * 2).astype(np.float32))

    def _polygons(
        self, record: Record, objects: list[dict[str, Any]], transforms: T.TransformList
    ) -> PolygonMasks:
        """The polygons in the augmented image; unlike boxes, they are not clipped to it."""
        moved = []
        for annotation in objects:
            polygons = annotation.get("segmentation")
            if not isinstance(polygons, list):
                raise UserError(
                    f"INPUT.MASK_FORMAT is polygon, but a mask in the annotation of "
                    f"{record['file_name']} is {_form(polygons)}; set the key to bitmask, which "
                    "takes all forms of masks"
                )
            points = [np.asarray(p, dtype=np.float64).reshape(-1, 2) for p in polygons]
            moved.append([transforms.apply_coords(p).ravel() for p in points])
        return PolygonMasks(moved)


@register_mapper("detr_detection")
class DetrDetectionMapper(DetectionMapper):
    """The same for ``Detr``, with DETR's crops: the crop clips boxes, and masks are bitmaps."""

    num_classes_key: ClassVar = "MODEL.DETR.NUM_CLASSES"
    augmentation: ClassVar[str] = "detr"

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        return {
            **super().from_config(cfg, is_train),
            "mask_format": "bitmask" if cfg.MODEL.MASK_ON else None,
            "boxes_from_masks": False,
        }


def _form(segmentation: Any) -> str:
    if segmentation is None:
        return "missing"
    return "run lengths" if isinstance(segmentation, dict) else "a bitmap"
