"""Warping and fusing in plain loops over pixels, in float64."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor


def warp_by_loops(maps: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """``warp`` of (K, h, w), from the definition of pixel centres."""
    classes, height, width = maps.shape
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
    result = np.zeros_like(maps)
    for i in range(height):
        for j in range(width):
            x, y = affine @ [(2 * j + 1) / width - 1, (2 * i + 1) / height - 1, 1]
            column, row = (x + 1) / 2 * width - 0.5, (y + 1) / 2 * height - 0.5
            left, top = math.floor(column), math.floor(row)
            for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                weight = (1 - abs(row - r)) * (1 - abs(column - c))
                if -1 <= r <= height and -1 <= c <= width:
                    result[:, i, j] += weight * padded[:, r + 1, c + 1]
    return result


def fuse_by_loops(probabilities: Tensor, to_frame: Tensor) -> np.ndarray:
    """``fuse_views`` of one image's views, which fill their maps."""
    inverses = [np.linalg.inv(np.vstack([view, [0, 0, 1]]))[:2] for view in to_frame.numpy()]
    ones = np.ones((1, *probabilities.shape[-2:]))
    total, count = 0.0, 0.0
    for view, inverse in zip(probabilities.numpy(), inverses, strict=True):
        total = total + warp_by_loops(view, inverse)
        count = count + warp_by_loops(ones, inverse)
    back = [
        warp_by_loops(total / count, affine) / warp_by_loops(ones, affine)
        for affine in to_frame.numpy()
    ]
    return np.stack(back)
