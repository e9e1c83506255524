"""The input format of backbones that were trained on ImageNet in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ddep.checkpoint.conversion.entries import Settings
from ddep.errors import UserError

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def input_config(
    settings: Settings, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> dict[str, Any]:
    """The config keys of the input: RGB, and the mean and standard deviation of its pixels.

    Args:
        settings: timm's values in ``pretrained_cfg`` take precedence.
        mean: the mean otherwise, for pixels between 0 and 1.
        std: the standard deviation otherwise.

    Raises:
        UserError: a value in ``settings`` is not three numbers.
    """
    pretrained = settings.get("pretrained_cfg")
    if isinstance(pretrained, dict):
        mean, std = _numbers(pretrained, "mean", mean), _numbers(pretrained, "std", std)
    return {
        "MODEL.PIXEL_MEAN": [round(255 * value, 6) for value in mean],
        "MODEL.PIXEL_STD": [round(255 * value, 6) for value in std],
        "INPUT.FORMAT": "RGB",
    }


def _numbers(pretrained: Settings, key: str, default: Sequence[float]) -> Sequence[float]:
    values = pretrained.get(key, default)
    if (
        not isinstance(values, (list, tuple))
        or len(values) != 3
        or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
    ):
        raise UserError(
            f"config.json: pretrained_cfg.{key} is {values!r}; expected three numbers, of pixels "
            "between 0 and 1"
        )
    return values
