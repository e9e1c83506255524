"""Mapper for image classification."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T

from ddep.data.classification_augmentation import (
    DrawResizedCrop,
    build_augmentations,
    build_resized_crop,
)
from ddep.data.image_reader import open_image
from ddep.data.mapper_registry import register_mapper
from ddep.data.mappers.base import describe, to_tensor
from ddep.data.record import Record
from ddep.data.window import draw_window, read_window
from ddep.errors import UserError


@register_mapper("classification")
class ClassificationMapper:
    """Maps records with ``classes``: random resized crops to train, central ones to evaluate."""

    needs_labels: ClassVar[str | None] = "classification"

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        resized_crop: DrawResizedCrop,
        augmentations: T.AugmentationList,
        image_format: str,
        draft_decoding: bool,
    ) -> None:
        """
        Args:
            is_train: whether to apply ``resized_crop`` before ``augmentations``.
            resized_crop: see :class:`ddep.data.classification_augmentation.DrawResizedCrop`.
            augmentations: see :mod:`ddep.data.classification_augmentation`.
            image_format: order of the channels, RGB or BGR.
            draft_decoding: in training, decode large JPEG files at a smaller size; evaluation
                decodes in full, so that its figures do not depend on this.
        """
        self.is_train = is_train
        self.resized_crop = resized_crop
        self.augmentations = augmentations
        self.image_format = image_format
        self.draft_decoding = draft_decoding and is_train

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        return {
            "is_train": is_train,
            "resized_crop": build_resized_crop(cfg),
            "augmentations": build_augmentations(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "draft_decoding": cfg.INPUT.DRAFT_DECODING,
        }

    def __call__(self, record: Record) -> Record:
        """
        Args:
            record: ``file_name``, and ``classes``, a list of class indices; these may be missing
                in evaluation.

        Returns:
            ``image`` (3, H, W) uint8 in the order of ``INPUT.FORMAT``; ``classes`` (N,) int64 if
            the record has them; ``file_name``, ``image_id`` if the record has one, ``height`` and
            ``width`` of the original image.

        Raises:
            UnreadableImageError: the image cannot be read.
            UserError: a training image without classes.
        """
        if self.is_train and "classes" not in record:
            raise UserError(
                f"image {record['file_name']} has no classes; choose another "
                "INPUT.DATASET_MAPPER_NAME or data set"
            )
        with open_image(record["file_name"]) as image:
            sample = describe(record, image.size)
            if self.is_train:
                window, augmentations = self.resized_crop(image.size), self.augmentations.augs
            else:
                window, augmentations = draw_window(self.augmentations.augs, image.size)
            pixels = read_window(image, window, self.image_format, self.draft_decoding)
        augmented = T.AugInput(pixels)
        T.AugmentationList(augmentations)(augmented)
        sample["image"] = to_tensor(augmented.image)
        if "classes" in record:
            sample["classes"] = torch.tensor(record["classes"], dtype=torch.int64)
        return sample
