"""Means over the pixels of each image, without padding."""

from __future__ import annotations

from torch import Tensor


def image_means(values: Tensor, valid: Tensor) -> Tensor:
    """Average each image's values over its valid pixels; 0 if it has none.

    Args:
        values: (B, h, w).
        valid: (B, h, w) bool.

    Returns:
        (B,).
    """
    total = values.masked_fill(~valid, 0).sum((1, 2))
    return total / valid.sum((1, 2)).clamp_min(1)
