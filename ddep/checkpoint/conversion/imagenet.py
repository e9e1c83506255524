"""What backbones that learned ImageNet in PyTorch's usual way expect of their input."""

from __future__ import annotations

from typing import Any

IMAGENET_CONFIG: dict[str, Any] = {
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
}
