"""Strong augmentation that leaves pixels where they are: RandAugment's colours, and cutout."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ddep.data.augmentation import IMAGE_FILL

# How many changes are drawn, with replacement; each is made with probability 1/2, at a level that
# is drawn from 1 to _LEVELS - 1.
_CHANGES = 2
_LEVELS = 10


def _factor(level: int) -> float:
    return 0.9 * level / _LEVELS + 0.05


# FixMatch's changes (arXiv 2001.07685, appendix D) that move no pixel, of 8-bit RGB images.
_POOL: dict[str, Callable[[Tensor, int], Tensor]] = {
    "autocontrast": lambda image, level: F.autocontrast(image),
    "brightness": lambda image, level: F.adjust_brightness(image, _factor(level)),
    "color": lambda image, level: F.adjust_saturation(image, _factor(level)),
    "contrast": lambda image, level: F.adjust_contrast(image, _factor(level)),
    "equalize": lambda image, level: F.equalize(image),
    "identity": lambda image, level: image,
    "posterize": lambda image, level: F.posterize(image, 4 + 4 * level // _LEVELS),
    "sharpness": lambda image, level: F.adjust_sharpness(image, _factor(level)),
    "solarize": lambda image, level: F.solarize(image, 256 - 256 * level // _LEVELS),
}


def build_rand_augment(image_format: str) -> Callable[[Tensor], Tensor]:
    """Build ProDA's RandAugment(2, 10) (arXiv 2101.10979) without the changes that move pixels.

    Its authors' code also flips, shears, shifts and turns the image, and what it learns from with
    it. All numbers are drawn from torch's global generator.

    Args:
        image_format: order of the channels, RGB or BGR.

    Returns:
        A function of (3, H, W) uint8 images, which returns the same kind and keeps its argument.
    """

    def change(image: Tensor) -> Tensor:
        for _ in range(_CHANGES):
            name = list(_POOL)[_integer(0, len(_POOL))]
            level = _integer(1, _LEVELS)
            if _integer(0, 2):
                image = _POOL[name](image, level)
        return image

    if image_format == "RGB":
        return change
    return lambda image: change(image.flip(0)).flip(0)


def cut_out(image: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Paint a square grey whose side is a third of the image's shorter one (arXiv 1708.04552).

    Its centre is drawn from the whole image, from torch's global generator.

    Args:
        image: (3, H, W) uint8; it is not modified.

    Returns:
        The image, and the square's top, left, bottom and right border: rows top to bottom - 1.
    """
    height, width = image.shape[-2:]
    side = min(height, width) // 3
    box = []
    for length in (height, width):
        first = max(0, _integer(0, length) - side // 2)
        box.append((first, min(length, first + side)))
    (top, bottom), (left, right) = box
    painted = image.clone()
    painted[:, top:bottom, left:right] = IMAGE_FILL
    return painted, (top, left, bottom, right)


def _integer(low: int, high: int) -> int:
    """From ``low`` to ``high`` - 1."""
    return int(torch.randint(low, high, ()))
