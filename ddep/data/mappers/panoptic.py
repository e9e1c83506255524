"""Mapper for panoptic segmentation: one mask per segment, thing or stuff."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances

from ddep.data.image_reader import read_panoptic
from ddep.data.mapper_registry import register_mapper
from ddep.data.mappers.base import (
    SegmentationMapper,
    check_classes,
    check_label_size,
    distinct,
    shorten,
)
from ddep.data.mappers.semantic import read_semantic
from ddep.data.record import Record
from ddep.errors import UserError


@register_mapper("mask_former_panoptic")
class PanopticMapper(SegmentationMapper):
    """Maps records with ``pan_seg_file_name`` and ``segments_info``; samples have ``pan_seg``.

    They also have ``sem_seg`` if the record has ``sem_seg_file_name``. Crowds have no mask.
    """

    needs_labels: ClassVar[str | None] = "panoptic_seg"

    def read_maps(self, record: Record, size: tuple[int, int]) -> dict[str, np.ndarray]:
        if "pan_seg_file_name" not in record:
            raise UserError(
                f"image {record['file_name']} has no panoptic labels (pan_seg_file_name); "
                "choose another INPUT.DATASET_MAPPER_NAME or data set"
            )
        path = record["pan_seg_file_name"]
        segments = read_panoptic(path)
        check_label_size(path, segments, size)
        ids, classes = _segments(record)
        check_classes(path, classes, self.num_classes)
        values, times = np.unique(ids, return_counts=True)
        if (times > 1).any():
            raise UserError(
                f"the annotation of {path} lists the segment ids {shorten(values[times > 1])} "
                "twice; every segment needs its own id: correct the annotation file"
            )
        unknown = np.setdiff1d(distinct(segments), [0, *ids])
        if len(unknown):
            raise UserError(
                f"panoptic label image {path} has the segment ids {shorten(unknown)}, which its "
                f"annotation does not list; expected 0 (void) and {shorten(ids) or 'no other'}: "
                "the image and the annotation file do not belong together"
            )
        maps = {"pan_seg": segments}
        if "sem_seg_file_name" in record:
            path = record["sem_seg_file_name"]
            maps["sem_seg"] = read_semantic(path, size, self.num_classes, self.ignore_label)
        return maps

    def make_masks(
        self,
        record: Record,
        maps: dict[str, np.ndarray],
        transforms: T.TransformList,
        size: tuple[int, int],
    ) -> tuple[np.ndarray, np.ndarray]:
        ids, classes = _segments(record, crowds=False)
        visible = np.isin(ids, distinct(maps["pan_seg"]))
        # With the map's dtype, the comparison is several times faster.
        shown = ids[visible].astype(maps["pan_seg"].dtype)
        return classes[visible], maps["pan_seg"] == shown[:, None, None]


@register_mapper("coco_panoptic_lsj")
class PanopticJitterMapper(PanopticMapper):
    """The same with large-scale jitter."""

    augmentation: ClassVar[str] = "large_scale_jitter"


@register_mapper("detr_panoptic")
class DetrPanopticMapper(PanopticMapper):
    """The same with DETR's crops."""

    augmentation: ClassVar[str] = "detr"


@register_mapper("detr_panoptic_boxes")
class DetrPanopticBoxesMapper(DetrPanopticMapper):
    """The same for ``Detr``: ``instances`` also have ``gt_boxes`` (:class:`Boxes`, absolute XYXY),
    which enclose the segments tightly. If the model predicts masks, ``gt_masks`` are
    :class:`BitMasks`; else there are none."""

    num_classes_key: ClassVar = "MODEL.DETR.NUM_CLASSES"

    @configurable
    def __init__(self, *, keeps_masks: bool, **kwargs: Any) -> None:
        """
        Args:
            keeps_masks: whether instances have masks.
            kwargs: see :class:`SegmentationMapper`.
        """
        super().__init__(**kwargs)
        self.keeps_masks = keeps_masks

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        return {**super().from_config(cfg, is_train), "keeps_masks": cfg.MODEL.MASK_ON}

    def make_instances(self, *args: Any, **kwargs: Any) -> Instances:
        instances = super().make_instances(*args, **kwargs)
        masks = BitMasks(instances.gt_masks)
        instances.gt_boxes = masks.get_bounding_boxes()
        instances.gt_masks = masks
        if not self.keeps_masks:
            instances.remove("gt_masks")
        return instances


def _segments(record: Record, crowds: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Ids and classes of a record's segments, (T,) int64 each."""
    segments = [s for s in record["segments_info"] if crowds or not s.get("iscrowd", 0)]
    ids = np.array([segment["id"] for segment in segments], dtype=np.int64)
    return ids, np.array([segment["category_id"] for segment in segments], dtype=np.int64)
