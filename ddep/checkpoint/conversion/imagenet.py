"""What backbones that learned ImageNet in PyTorch expect of their input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ddep.checkpoint.conversion.entries import Settings

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def input_config(
    settings: Settings, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> dict[str, Any]:
    """The config keys of the input: RGB, and the mean and standard deviation of its pixels.

    Args:
        settings: where timm says them (``pretrained_cfg``), that is what counts.
        mean: otherwise; for pixels between 0 and 1.
        std: likewise.
    """
    pretrained = settings.get("pretrained_cfg")
    if isinstance(pretrained, dict):
        mean, std = pretrained.get("mean", mean), pretrained.get("std", std)
    return {
        "MODEL.PIXEL_MEAN": [round(255 * value, 6) for value in mean],
        "MODEL.PIXEL_STD": [round(255 * value, 6) for value in std],
        "INPUT.FORMAT": "RGB",
    }
