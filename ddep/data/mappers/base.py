"""The pipeline that segmentation mappers share; each adds the reading of its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import Instances

from ddep.config import get_key
from ddep.data.augmentation import LabelledImage, build_augmentations, transform_labels
from ddep.data.class_centre import CLASS_TO_SHOW, draw_class_centre
from ddep.data.image_reader import open_image
from ddep.data.record import Record
from ddep.data.window import draw_resizing
from ddep.errors import UserError


class SegmentationMapper:
    """Turn a data set's record into the model's input; base of the segmentation mappers.

    A subclass reads label maps (:meth:`read_maps`) and makes masks (:meth:`make_masks`). Both are
    only called in training: evaluators read the labels themselves.
    """

    needs_labels: ClassVar[str | None]
    # The config key that holds the number of classes.
    num_classes_key: ClassVar = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
    augmentation: ClassVar[str] = "resize_and_crop"

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: T.AugmentationList,
        image_format: str,
        num_classes: int,
        ignore_label: int,
        tile_size: int,
    ) -> None:
        """
        Args:
            is_train: whether to augment and read labels, or only resize the image.
            augmentations: see :func:`ddep.data.augmentation.build_augmentations`.
            image_format: order of the channels, RGB or BGR.
            num_classes: classes are 0 .. ``num_classes - 1``.
            ignore_label: label of pixels that do not count.
            tile_size: see :func:`ddep.data.class_centre.draw_class_centre`.
        """
        self.is_train = is_train
        self.augmentations = augmentations
        self.image_format = image_format
        self.num_classes = num_classes
        self.ignore_label = ignore_label
        self.tile_size = tile_size

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        ignore_label = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
        for name in cfg.DATASETS.TRAIN if is_train else ():
            theirs = MetadataCatalog.get(name).get("ignore_label", ignore_label)
            if theirs != ignore_label:
                raise UserError(
                    f"MODEL.SEM_SEG_HEAD.IGNORE_VALUE is {ignore_label}, but the ignore label of "
                    f"data set {name} is {theirs}; set the key to that"
                )
        return {
            "is_train": is_train,
            "augmentations": build_augmentations(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "num_classes": get_key(cfg, cls.num_classes_key),
            "ignore_label": ignore_label,
            "tile_size": cfg.DATALOADER.CLASS_UNIFORM.TILE_SIZE,
        }

    def __call__(self, record: Record) -> Record:
        """
        Args:
            record: one image in detectron2's standard data set format; it is not modified. If it
                has ``class_to_show``, a crop in training shows that class's centroid.

        Returns:
            ``image`` (3, H, W) uint8 in the order of ``INPUT.FORMAT``; ``file_name``, ``image_id``
            if the record has one, ``height`` and ``width`` of the original image. In training also
            ``instances`` of size (H, W), with ``gt_classes`` (T,) int64 and ``gt_masks`` (T, H, W)
            bool, none of them empty, and the label maps of the task, (H, W) int64.

        Raises:
            UnreadableImageError: the image or a label image cannot be read.
            UserError: labels that do not fit the image or the classes.
        """
        return self.map_image(record, self.augmentations.augs)

    def map_image(self, record: Record, augmentations: Sequence[T.Augmentation]) -> Record:
        """Like :meth:`__call__`, but with other augmentations."""
        with open_image(record["file_name"]) as file:
            size = file.size
            # Resizing before it becomes an array saves three copies of the large image.
            resizing, others = draw_resizing(augmentations, size)
            resized = (resizing[0].new_h, resizing[0].new_w) if resizing else None
            image = file.pixels(self.image_format, resized=resized)
        sample = describe(record, size)
        check_size(record, size)
        maps = self.read_maps(record, size) if self.is_train else {}
        sem_seg = maps.get("sem_seg")
        centre = None
        if sem_seg is not None:
            centre = self._class_centre(record, sem_seg, resizing)
            sem_seg = transform_labels(T.TransformList(resizing), sem_seg, self.ignore_label)
        augmented = LabelledImage(image, sem_seg, self.ignore_label, centre)
        following = T.AugmentationList(others)(augmented)
        transforms = T.TransformList([*resizing, *following.transforms])
        sample["image"] = to_tensor(augmented.image)
        if not self.is_train:
            return sample
        if "sem_seg" in maps:
            maps["sem_seg"] = augmented.sem_seg
        if "pan_seg" in maps:
            maps["pan_seg"] = transform_labels(transforms, maps["pan_seg"], fill=0)
        augmented_size = augmented.image.shape[:2]
        sample["instances"] = self.make_instances(record, maps, transforms, size, augmented_size)
        for name, labels in maps.items():
            sample[name] = torch.from_numpy(labels.astype(np.int64))
        return sample

    def _class_centre(
        self, record: Record, sem_seg: np.ndarray, resizing: list[T.Transform]
    ) -> np.ndarray | None:
        """Where the resized image shows the record's ``class_to_show``, if it has one."""
        if CLASS_TO_SHOW not in record:
            return None
        centre = draw_class_centre(sem_seg, record[CLASS_TO_SHOW], self.tile_size)
        return None if centre is None else T.TransformList(resizing).apply_coords(centre[None])[0]

    def make_instances(
        self,
        record: Record,
        maps: dict[str, np.ndarray],
        transforms: T.TransformList,
        size: tuple[int, int],
        augmented_size: tuple[int, int],
    ) -> Instances:
        """Make the model's targets in the augmented image: classes and masks, none empty.

        Args:
            record, maps, transforms, size: as in :meth:`make_masks`.
            augmented_size: height and width of the augmented image.
        """
        classes, masks = self.make_masks(record, maps, transforms, size)
        visible = masks.any(axis=(1, 2))
        if not visible.all():
            classes, masks = classes[visible], masks[visible]
        instances = Instances(augmented_size)
        instances.gt_classes = torch.from_numpy(classes.astype(np.int64))
        instances.gt_masks = torch.from_numpy(masks)
        return instances

    def read_maps(self, record: Record, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Read the record's label maps, ``sem_seg`` and ``pan_seg``, and check them.

        Args:
            record: as in :meth:`__call__`.
            size: height and width of the original image.

        Returns:
            (H, W) int32 of the original size, by name.
        """
        raise NotImplementedError

    def make_masks(
        self,
        record: Record,
        maps: dict[str, np.ndarray],
        transforms: T.TransformList,
        size: tuple[int, int],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Make the masks of the augmented image, which may be empty.

        Args:
            record: as in :meth:`__call__`.
            maps: the augmented label maps.
            transforms: what the augmentations did.
            size: height and width of the original image.

        Returns:
            classes (T,) of any integer dtype, masks (T, H, W) bool.
        """
        raise NotImplementedError


def describe(record: Record, size: tuple[int, int]) -> Record:
    """Start a sample: the image's file name, id (if any) and original size."""
    sample = {"file_name": record["file_name"], "height": size[0], "width": size[1]}
    if "image_id" in record:
        sample["image_id"] = record["image_id"]
    return sample


def check_size(record: Record, size: tuple[int, int]) -> None:
    """Raise :class:`UserError` unless the image has the size that its record states."""
    height, width = size
    stated = record.get("height", height), record.get("width", width)
    if stated != (height, width):
        raise UserError(
            f"image {record['file_name']} is {width}x{height}, but its annotation says "
            f"{stated[1]}x{stated[0]}; correct the annotation (EXIF orientation is applied)"
        )


def check_label_size(path: str, labels: np.ndarray, size: tuple[int, int]) -> None:
    """Raise :class:`UserError` unless a label map has its image's size."""
    if labels.shape != size:
        raise UserError(
            f"label image {path} is {labels.shape[1]}x{labels.shape[0]}, but its image is "
            f"{size[1]}x{size[0]}; they must have the same size"
        )


def check_classes(
    path: str, classes: np.ndarray, num_classes: int, key: str = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
) -> None:
    """Raise :class:`UserError` unless all classes in an annotation are in range.

    ``key`` is the config key of ``num_classes``, for the message.
    """
    wrong = np.unique(classes[(classes < 0) | (classes >= num_classes)])
    if len(wrong):
        raise UserError(
            f"the annotation of {path} has classes {shorten(wrong)}; expected 0 to "
            f"{num_classes - 1}: correct it or set {key}"
        )


def distinct(labels: np.ndarray) -> np.ndarray:
    """The distinct values of a label map, ascending: ``numpy.unique``, but faster.

    Neighbours are mostly equal, so only the first pixel of each run of equal ones is considered.
    """
    flat = labels.ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return np.unique(np.append(flat[:1], flat[starts]))


def shorten(ids: np.ndarray) -> str:
    """``1, 2, 3``; only the first ten and an ellipsis if there are more."""
    return ", ".join(str(i) for i in ids[:10]) + (", ..." if len(ids) > 10 else "")


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """Copy (H, W, C) into a contiguous (C, H, W) tensor."""
    planes = np.empty((image.shape[2], *image.shape[:2]), image.dtype)
    cv2.split(image, list(planes))
    return torch.from_numpy(planes)
