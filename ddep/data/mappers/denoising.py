"""Mapper for denoising pretraining: adds Gaussian noise to unlabelled images."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T

from ddep.data.augmentation import build_augmentations
from ddep.data.image_reader import open_image
from ddep.data.mapper_registry import register_mapper
from ddep.data.mappers.base import describe, to_tensor
from ddep.data.record import Record
from ddep.data.window import draw_window, read_window
from ddep.errors import UserError
from ddep.noise import add_noise, check_formulation, draw_sigma


@register_mapper("ddep_denoising")
class DenoisingMapper:
    """Normalise an image, then add noise (arXiv 2205.11423, section 3.2; :mod:`ddep.noise`)."""

    needs_labels: ClassVar[str | None] = None
    augmentation: ClassVar[str] = "resize_and_crop"

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: T.AugmentationList,
        image_format: str,
        pixel_mean: list[float],
        pixel_std: list[float],
        sigma_range: list[float],
        formulation: str,
        draft_decoding: bool,
    ) -> None:
        """
        Args:
            is_train: whether to draw noise from torch's global generator. If not, the record's
                ``position`` seeds the noise, so that an image always gets the same.
            augmentations: see :func:`ddep.data.augmentation.build_augmentations`.
            image_format: order of the channels, RGB or BGR.
            pixel_mean, pixel_std: three numbers each, in that order, for pixels of 0 .. 255.
            sigma_range: see :func:`ddep.noise.draw_sigma`.
            formulation: see :func:`ddep.noise.add_noise`.
            draft_decoding: in training, decode large JPEG files at a smaller size; evaluation
                decodes in full, so that its figures do not depend on this.

        Raises:
            UserError: an impossible value.
        """
        self.is_train = is_train
        self.augmentations = augmentations
        self.image_format = image_format
        self.mean = _three("MODEL.PIXEL_MEAN", pixel_mean)
        self.std = _three("MODEL.PIXEL_STD", pixel_std)
        self.sigma_range = sigma_range
        self.formulation = check_formulation(formulation)
        self.draft_decoding = draft_decoding and is_train
        draw_sigma(sigma_range, torch.Generator())  # a check; leaves the global generator alone

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool) -> dict[str, Any]:
        return {
            "is_train": is_train,
            "augmentations": build_augmentations(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "sigma_range": cfg.MODEL.DDEP.SIGMA,
            "formulation": cfg.MODEL.DDEP.NOISE,
            "draft_decoding": cfg.INPUT.DRAFT_DECODING,
        }

    def __call__(self, record: Record) -> Record:
        """
        Args:
            record: ``file_name``, and ``position`` in the data set if not training; labels are
                ignored.

        Returns:
            ``image`` (3, H, W) float32, normalised and noisy; ``noise`` (3, H, W) float32;
            ``sigma`` float, in units of the normalised image; ``file_name``, ``image_id`` if the
            record has one, ``height`` and ``width`` of the original image.

        Raises:
            UnreadableImageError: the image cannot be read.
        """
        with open_image(record["file_name"]) as image:
            sample = describe(record, image.size)
            window, augmentations = draw_window(self.augmentations.augs, image.size)
            pixels = read_window(image, window, self.image_format, self.draft_decoding)
        augmented = T.AugInput(pixels)
        T.AugmentationList(augmentations)(augmented)
        generator = None if self.is_train else torch.Generator().manual_seed(record["position"])
        sigma = draw_sigma(self.sigma_range, generator)
        pixels = to_tensor(augmented.image)
        noise = torch.randn(pixels.shape, generator=generator)
        noisy = add_noise(pixels, noise, sigma, self.formulation, self.mean, self.std)
        return {**sample, "image": noisy, "noise": noise, "sigma": sigma}


def _three(key: str, values: list[float]) -> torch.Tensor:
    if len(values) != 3:
        raise UserError(f"{key} is {values}; expected three numbers, one per channel")
    return torch.tensor(values, dtype=torch.float32)[:, None, None]
