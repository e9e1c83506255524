"""An image with noise, denoised and clean, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddep.noise import recover_image


def draw_denoising(
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    *,
    formulation: str,
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
    image_format: str,
) -> np.ndarray:
    """Put the noisy, the denoised and the clean image side by side: (H, 3 W, 3) uint8, RGB.

    Args:
        inputs, outputs, formulation: see :func:`noisy_denoised_clean`.
        pixel_mean, pixel_std: one number a channel, what the image was normalised with.
        image_format: order of the channels, RGB or BGR.
    """
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (pixel_mean, pixel_std))
    versions = noisy_denoised_clean(inputs, outputs, formulation, mean, std)
    pictures = [to_picture(version, image_format) for version in versions]
    return torch.cat(pictures, dim=2).permute(1, 2, 0).numpy()


def noisy_denoised_clean(
    image: Mapping[str, Any],
    output: Mapping[str, Any],
    formulation: str,
    pixel_mean: Tensor,
    pixel_std: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """An image with its noise, without the noise that was predicted, and without any.

    Args:
        image: the model's input, as the denoising mapper makes it.
        output: the model's output for it, with ``denoised`` (3, H, W), normalised.
        formulation: how noise was added (see :mod:`ddep.noise`).
        pixel_mean, pixel_std: (3, 1, 1), what the image was normalised with.

    Returns:
        Three tensors (3, H, W) float32 on the CPU, of pixel values from 0 to 255, not clipped. The
        noisy one is ``x + sigma * eps``, whatever the formulation.
    """
    noise, sigma = image["noise"].cpu(), image["sigma"]
    clean = recover_image(image["image"].cpu(), noise, sigma, formulation)
    versions = (clean + sigma * noise, output["denoised"].cpu(), clean)
    return tuple(version * pixel_std + pixel_mean for version in versions)


def to_picture(pixels: Tensor, image_format: str) -> Tensor:
    """(3, H, W) uint8 RGB of (3, H, W) pixel values in ``image_format`` (RGB or BGR)."""
    picture = pixels.round().clamp(0, 255).to(torch.uint8)
    return picture.flip(0) if image_format == "BGR" else picture
