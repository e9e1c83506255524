"""Mapper for video instance segmentation: clips of frames with the same objects in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from detectron2.structures import Instances

from ddep.data.clip_augmentation import for_clip
from ddep.data.frames import FramesOnDemand, draw_frames
from ddep.data.mapper_registry import register_mapper
from ddep.data.mappers.instance import InstanceMapper
from ddep.data.record import Record, frame_record
from ddep.errors import UserError

_ABSENT = -1  # the id of an object in a frame that does not show it


@register_mapper("mask_former_video_instance")
class VideoInstanceMapper(InstanceMapper):
    """Maps records of videos; crowds have no mask.

    In training it draws a clip, as INPUT.SAMPLING_FRAME_* say. Otherwise it returns all frames;
    with TEST.CLIP.FRAMES they are only read when the model asks for them.
    """

    needs_labels: ClassVar[str | None] = "video_segm"
    augmentation: ClassVar[str] = "clip"

    @configurable
    def __init__(
        self,
        *,
        clip_length: int,
        reach: int,
        shuffle: bool,
        on_demand: bool,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            clip_length: frames of a training clip.
            reach, shuffle: see :func:`draw_frames`.
            on_demand: whether to read the frames only when they are asked for, except in training.
            kwargs: see :class:`SegmentationMapper`.
        """
        super().__init__(**kwargs)
        self.clip_length = clip_length
        self.reach = reach
        self.shuffle = shuffle
        self.on_demand = on_demand

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        for key, least in (("SAMPLING_FRAME_NUM", 1), ("SAMPLING_FRAME_RANGE", 0)):
            if cfg.INPUT[key] < least:
                raise UserError(f"INPUT.{key} is {cfg.INPUT[key]}; expected at least {least}")
        return {
            **super().from_config(cfg, is_train),
            "clip_length": cfg.INPUT.SAMPLING_FRAME_NUM,
            "reach": cfg.INPUT.SAMPLING_FRAME_RANGE,
            "shuffle": cfg.INPUT.SAMPLING_FRAME_SHUFFLE,
            "on_demand": cfg.TEST.CLIP.FRAMES > 0,
        }

    def __call__(self, record: Record) -> Record:
        """
        Args:
            record: one video, as :func:`ddep.data.datasets.video.load_videos` returns it; it is not
                modified.

        Returns:
            ``image``, a sequence of T frames, (3, H, W) uint8 in the order of ``INPUT.FORMAT``;
            ``file_name`` of the video; ``file_names`` and ``frame_indices`` of the T frames;
            ``height`` and ``width`` of the original ones; ``video_id``; ``length``, T. In training
            also ``instances``, for each frame the same N objects: ``gt_classes`` (N,) int64,
            ``gt_ids`` (N,) int64, -1 where the frame does not show an object, and ``gt_masks``
            (N, H, W) bool, empty there; each object is visible in at least one frame. And ``seed``,
            an integer for models that draw random numbers of their own for the sample.

        Raises:
            UnreadableImageError: a frame cannot be read.
            UserError: no video, or labels that do not fit the frames or the classes.
        """
        if "file_names" not in record:
            raise UserError(
                f"image {record['file_name']} is no video; choose another "
                "INPUT.DATASET_MAPPER_NAME or data set"
            )
        if self.is_train:
            return self._training_clip(record)
        frames = range(record["length"])
        sample = _describe(record, frames)
        sample["image"] = FramesOnDemand(record["file_names"], _FrameReader(self, record))
        if not self.on_demand:
            sample["image"] = sample["image"][:]
        return sample

    def _training_clip(self, record: Record) -> Record:
        if "annotations" not in record:
            raise UserError(
                f"the video of {record['file_name']} has no annotations; choose another data set"
            )
        frames = draw_frames(record["length"], self.clip_length, self.reach, shuffle=self.shuffle)
        augmentations = for_clip(self.augmentations.augs)
        mapped = [self.map_image(frame_record(record, f), augmentations) for f in frames]
        return {
            **_describe(record, frames),
            "image": [frame["image"] for frame in mapped],
            "instances": _align([frame["instances"] for frame in mapped]),
            "seed": int(np.random.randint(2**31)),
        }

    def make_instances(
        self,
        record: Record,
        maps: dict[str, np.ndarray],
        transforms: T.TransformList,
        size: tuple[int, int],
        augmented_size: tuple[int, int],
    ) -> Instances:
        classes, masks = self.make_masks(record, maps, transforms, size)
        objects, _ = self.objects(record)
        ids = torch.tensor([annotation["id"] for annotation in objects], dtype=torch.int64)
        if len(ids.unique()) < len(ids):
            raise UserError(
                f"{record['file_name']} has the tracks {sorted(ids.tolist())}; expected each of "
                "them once in a frame; correct the annotation file"
            )
        instances = Instances(augmented_size)
        instances.gt_classes = torch.from_numpy(classes)
        instances.gt_ids = ids
        instances.gt_masks = torch.from_numpy(masks)
        return instances[instances.gt_masks.flatten(1).any(1)]


class _FrameReader:
    """Reads and resizes a frame of a video that is not trained on."""

    def __init__(self, mapper: VideoInstanceMapper, record: Record) -> None:
        self._mapper = mapper
        self._size = {"height": record["height"], "width": record["width"]}

    def __call__(self, path: str) -> torch.Tensor:
        augmentations = self._mapper.augmentations.augs
        return self._mapper.map_image({"file_name": path, **self._size}, augmentations)["image"]


def _describe(record: Record, frames: Sequence[int]) -> Record:
    return {
        "file_name": record["file_name"],
        "file_names": [record["file_names"][frame] for frame in frames],
        "frame_indices": list(frames),
        "height": record["height"],
        "width": record["width"],
        "video_id": record["video_id"],
        "length": len(frames),
    }


def _align(frames: Sequence[Instances]) -> list[Instances]:
    """Give each frame the objects of all frames, by their ids, in the order of appearance.

    Args:
        frames: with ``gt_classes``, ``gt_ids`` and ``gt_masks``.
    """
    classes = {
        number: class_id
        for frame in frames
        for number, class_id in zip(frame.gt_ids.tolist(), frame.gt_classes.tolist(), strict=True)
    }
    rows = {number: row for row, number in enumerate(classes)}
    aligned = []
    for frame in frames:
        here = [rows[number] for number in frame.gt_ids.tolist()]
        instances = Instances(frame.image_size)
        instances.gt_classes = torch.tensor(list(classes.values()), dtype=torch.int64)
        instances.gt_ids = torch.full((len(rows),), _ABSENT)
        instances.gt_ids[here] = frame.gt_ids
        instances.gt_masks = torch.zeros((len(rows), *frame.image_size), dtype=torch.bool)
        instances.gt_masks[here] = frame.gt_masks
        aligned.append(instances)
    return aligned
