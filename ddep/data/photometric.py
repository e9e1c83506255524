"""Random changes of an image's colours and sharpness, which leave every pixel where it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from ddep.config_checks import are_numbers
from ddep.errors import UserError


def build_photometric(
    *,
    color_jitter: Sequence[float],
    jitter_probability: float,
    gray_probability: float,
    blur_sigma: Sequence[float],
    blur_probability: float,
    image_format: str,
) -> Callable[[Tensor], Tensor]:
    """Build random colour jitter, then random greyscale, then random blur.

    All numbers are drawn from torch's global generator. With a probability of 0, a change draws
    none.

    Args:
        color_jitter: b, c, s, h: brightness, contrast and saturation are multiplied by factors
            from max(0, 1 - b) to 1 + b and so on, hue is turned by -h to h of a full turn, in a
            random order (torchvision's ColorJitter).
        jitter_probability: of the jitter, 0 to 1.
        gray_probability: of greyscale, 0 to 1.
        blur_sigma: smallest and largest standard deviation of the Gaussian blur, in pixels.
        blur_probability: of the blur, 0 to 1.
        image_format: order of the channels, RGB or BGR.

    Returns:
        A function of (3, H, W) uint8 images, which returns the same kind and keeps its argument.
    """
    jitter, blur = v2.ColorJitter(*color_jitter), _GaussianBlur(*blur_sigma)
    changes = [
        (jitter_probability, v2.RandomApply([jitter], p=jitter_probability)),
        (gray_probability, v2.RandomGrayscale(p=gray_probability)),
        (blur_probability, v2.RandomApply([blur], p=blur_probability)),
    ]
    modules: list[nn.Module] = [module for probability, module in changes if probability > 0]
    if image_format == "BGR":
        modules = [_ReversedChannels(), *modules, _ReversedChannels()]
    return nn.Sequential(*modules)


class _ReversedChannels(nn.Module):
    """Turns RGB into BGR, and BGR into RGB."""

    def forward(self, image: Tensor) -> Tensor:
        """Reverse the channels of an image (3, H, W)."""
        return image.flip(0)


class _GaussianBlur(nn.Module):
    """torchvision's GaussianBlur, whose kernel ends at four of the drawn standard deviations."""

    def __init__(self, smallest: float, largest: float) -> None:
        super().__init__()
        self.range = (smallest, largest)

    def forward(self, image: Tensor) -> Tensor:
        """Blur an image (..., H, W) of any dtype."""
        sigma = torch.empty(1).uniform_(*self.range).item()
        # The image is reflected at its borders, which a larger kernel would leave.
        radius = min(round(4 * sigma), min(image.shape[-2:]) - 1)
        return v2.functional.gaussian_blur(image, [2 * radius + 1] * 2, [sigma, sigma])


def check_color_jitter(key: str, values: Any) -> None:
    """UserError unless ``values``, the config's ``key``, is a color_jitter."""
    fits = are_numbers(values, 4) and min(values) >= 0 and values[3] <= 0.5
    if not fits:
        raise UserError(
            f"{key} is {values!r}; expected four numbers that are not negative: the changes of "
            "brightness, contrast, saturation, and of hue (up to 0.5)"
        )
