"""The arithmetic of denoising: an image ``x``, Gaussian noise ``eps`` and its size ``sigma``.

Decoder Denoising Pretraining (Brempong et al., 2022, arXiv 2205.11423), section 3. ``x`` is
normalised before noise is added, so ``sigma`` is in units of the normalised image. All functions
are pointwise. The inverses take any shape and floating dtype, NumPy or torch, and ``sigma`` as a
number, or as a tensor that broadcasts against ``x``.
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor

from ddep.errors import UserError

FORMULATIONS = ("scaled", "additive")
Array = TypeVar("Array")


def check_formulation(formulation: str) -> str:
    """Return ``formulation`` unchanged, or raise :class:`UserError` if it is not known."""
    if formulation not in FORMULATIONS:
        raise UserError(
            f"MODEL.DDEP.NOISE is {formulation!r}; expected one of {', '.join(FORMULATIONS)}"
        )
    return formulation


def noise_scale(sigma, formulation: str):
    """The factor in front of the noisy image: ``1 / sqrt(1 + sigma^2)`` or 1.

    ``scaled`` keeps the variance of a unit-variance image: it is ``sqrt(gamma)`` with
    ``gamma = 1 / (1 + sigma^2)`` (section 3.2 of the paper).
    """
    return (1 + sigma**2) ** -0.5 if check_formulation(formulation) == "scaled" else 1.0


def add_noise(
    pixels: Tensor,
    noise: Tensor,
    sigma: float,
    formulation: str,
    mean: Tensor | float = 0.0,
    std: Tensor | float = 1.0,
) -> Tensor:
    """``(x + sigma * eps) * noise_scale`` with ``x = (pixels - mean) / std``: the noisy image.

    The product is expanded, so that a large image passes through memory three times, not five.

    Args:
        pixels: of any shape and floating dtype, as ``noise``; both stay as they are.
        noise: ``eps``, standard Gaussian.
        sigma: in units of the normalised image.
        formulation: one of :data:`FORMULATIONS`.
        mean, std: to normalise ``pixels`` with, against which they broadcast. By default the pixels
            are normalised already.
    """
    scale = noise_scale(sigma, formulation)
    noisy = torch.mul(pixels, scale / std).sub_(mean * scale / std)
    return noisy.add_(noise, alpha=sigma * scale)


def recover_image(noisy: Array, noise: Array, sigma, formulation: str) -> Array:
    """Solve :func:`add_noise` for the clean image."""
    return noisy / noise_scale(sigma, formulation) - sigma * noise


def recover_noise(noisy: Array, image: Array, sigma, formulation: str) -> Array:
    """Solve :func:`add_noise` for the noise. ``sigma`` must not be zero."""
    return (noisy / noise_scale(sigma, formulation) - image) / sigma


def draw_sigma(sigma_range: list[float], generator: torch.Generator | None = None) -> float:
    """Draw one image's ``sigma``: the number itself, or uniform between two numbers.

    Args:
        sigma_range: ``[sigma]`` or ``[low, high]``, positive (``MODEL.DDEP.SIGMA``).
        generator: source of randomness; torch's global one by default.

    Raises:
        UserError: not one or two positive numbers in ascending order.
    """
    error = UserError(
        f"MODEL.DDEP.SIGMA is {sigma_range}; expected [sigma] or [low, high], all above 0"
    )
    try:
        values = [float(s) for s in sigma_range]
    except (TypeError, ValueError) as cause:
        raise error from cause
    if len(values) not in (1, 2) or not 0 < values[0] <= values[-1] < math.inf:
        raise error
    if len(values) == 1:
        return values[0]
    low, high = values
    return low + (high - low) * torch.rand((), generator=generator).item()
