"""Mappers of target images (``DATASETS.TARGET``), whose labels are never read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from torch import Tensor

from ddep.config_checks import check_probability, check_range
from ddep.data.augmentation import build_geometry
from ddep.data.image_reader import open_image
from ddep.data.mapper_registry import register_target_mapper
from ddep.data.mappers.base import describe, to_tensor
from ddep.data.photometric import build_photometric, check_color_jitter
from ddep.data.record import Record
from ddep.data.window import draw_window, read_window


@register_target_mapper("target")
class WeakTargetMapper:
    """Resizes, crops and flips target images as training images are; their colours stay."""

    @configurable
    def __init__(self, *, geometry: T.AugmentationList, image_format: str) -> None:
        """
        Args:
            geometry: see :func:`ddep.data.augmentation.build_geometry`.
            image_format: order of the channels, RGB or BGR.
        """
        self.geometry = geometry
        self.image_format = image_format

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"geometry": build_geometry(cfg), "image_format": cfg.INPUT.FORMAT}

    def __call__(self, record: Record) -> Record:
        """
        Args:
            record: ``file_name``; labels are ignored.

        Returns:
            ``is_target``, True; ``image`` (3, H, W) uint8, never padded; ``file_name``,
            ``image_id`` if the record has one, ``height`` and ``width`` of the original image;
            ``seed``, int in [0, 2^31), of what is drawn later for this sample.

        Raises:
            UnreadableImageError: the image cannot be read.
        """
        return self.weak_view(record)[0]

    def weak_view(self, record: Record) -> tuple[Record, np.ndarray]:
        """As :meth:`__call__`, and where the original image lies in ``image``.

        Returns:
            The sample, and (2, 2) float64: x and y, in pixels of ``image``, of the corners that
            were the original's upper left and lower right one; they may be outside.
        """
        with open_image(record["file_name"]) as file:
            sample = describe(record, file.size)
            window, augmentations = draw_window(self.geometry.augs, file.size)
            pixels = read_window(file, window, self.image_format, draft=False)
        (height, width), top, left = window.whole, window.top, window.left
        corners = np.array([[-left, -top], [width - left, height - top]], dtype=np.float64)
        augmented = _Unpadded(pixels)
        corners = T.AugmentationList(augmentations)(augmented).apply_coords(corners)
        image = to_tensor(augmented.image)
        seed = int(torch.randint(2**31, ()))
        return {**sample, "is_target": True, "image": image, "seed": seed}, corners


@register_target_mapper("target_strong")
class StrongTargetMapper(WeakTargetMapper):
    """Adds a strong view: the weak one with random changes of colour and sharpness."""

    strong_views: ClassVar[int] = 1

    @configurable
    def __init__(
        self,
        *,
        geometry: T.AugmentationList,
        image_format: str,
        photometric: Callable[[Tensor], Tensor],
    ) -> None:
        """
        Args:
            geometry, image_format: as in :class:`WeakTargetMapper`.
            photometric: see :func:`ddep.data.photometric.build_photometric`.
        """
        super().__init__(geometry=geometry, image_format=image_format)
        self.photometric = photometric

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "photometric": strong_changes(cfg)}

    def __call__(self, record: Record) -> Record:
        """
        Returns:
            As :class:`WeakTargetMapper`, and ``strong``, a list of (3, H, W) uint8: independent
            changes of ``image``.
        """
        sample = super().__call__(record)
        sample["strong"] = [self.photometric(sample["image"]) for _ in range(self.strong_views)]
        return sample


@register_target_mapper("target_strong_pair")
class StrongPairTargetMapper(StrongTargetMapper):
    """Adds two strong views."""

    strong_views: ClassVar[int] = 2


def strong_changes(cfg: CfgNode) -> Callable[[Tensor], Tensor]:
    """Build what makes a strong view of a weak one, from ``MODEL.ADAPTATION.STRONG``.

    Raises:
        UserError: an impossible value.
    """
    path, keys = "MODEL.ADAPTATION.STRONG", cfg.MODEL.ADAPTATION.STRONG
    check_color_jitter(f"{path}.COLOR_JITTER", keys.COLOR_JITTER)
    check_range(f"{path}.BLUR_SIGMA", keys.BLUR_SIGMA)
    for key in ("JITTER_PROBABILITY", "GRAY_PROBABILITY", "BLUR_PROBABILITY"):
        check_probability(f"{path}.{key}", keys[key])
    return build_photometric(
        color_jitter=keys.COLOR_JITTER,
        jitter_probability=keys.JITTER_PROBABILITY,
        gray_probability=keys.GRAY_PROBABILITY,
        blur_sigma=keys.BLUR_SIGMA,
        blur_probability=keys.BLUR_PROBABILITY,
        image_format=cfg.INPUT.FORMAT,
    )


class _Unpadded(T.AugInput):
    """An image that is not padded: where a batch is padded, the model knows which pixels count."""

    def transform(self, transform: T.Transform) -> None:
        if isinstance(transform, T.TransformList):
            for step in transform.transforms:
                self.transform(step)
        elif not isinstance(transform, T.PadTransform):
            super().transform(transform)
