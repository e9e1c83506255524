"""Affine views of images: warp maps from an image to its views and back.

An affine map is (2, 3), as ``torch.nn.functional.affine_grid`` takes it: it maps (x, y, 1) to
(x', y'). Coordinates go from -1 to 1 between the outer borders of the first and last pixels (not
between their centres: ``align_corners`` is False), so a map is the same for every resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# Below this sum of weights, a pixel is one that no view shows.
_LEAST_WEIGHT = 1e-3


def warp(maps: Tensor, affine: Tensor) -> Tensor:
    """Sample maps bilinearly; zeros outside.

    Args:
        maps: (N, K, h, w) float32.
        affine: (N, 2, 3), from coordinates of the result to those of ``maps``.

    Returns:
        (N, K, h, w).
    """
    # Multiplied in half precision, coordinates would be wrong by pixels.
    with torch.autocast(maps.device.type, enabled=False):
        grid = F.affine_grid(affine.to(maps.dtype), list(maps.shape), align_corners=False)
        return F.grid_sample(maps, grid, align_corners=False)


def invert(affine: Tensor) -> Tensor:
    """The inverse of affine maps (N, 2, 3)."""
    inverse = torch.linalg.inv(affine[:, :, :2])
    return _join(inverse, -_product(inverse, affine[:, :, 2]))


def on_canvas(affine: Tensor, sizes: Sequence[tuple[int, int]], canvas: tuple[int, int]) -> Tensor:
    """Express affine maps between images in coordinates of the larger canvas that they lie on.

    Args:
        affine: (N, 2, 3), between two images of one size, in their own coordinates.
        sizes: height and width of each pair of images.
        canvas: height and width of the canvas, in whose upper left corner both lie: the images are
            padded at the bottom and on the right.

    Returns:
        (N, 2, 3), between canvases.
    """
    # A coordinate x of an image is r x + r - 1 on the canvas, with the ratio r of their sides.
    ratio = torch.tensor(
        [(width / canvas[1], height / canvas[0]) for height, width in sizes],
        dtype=affine.dtype,
        device=affine.device,
    )
    linear = ratio[:, :, None] * affine[:, :, :2] / ratio[:, None, :]
    offset = ratio * affine[:, :, 2] + ratio - 1
    return _join(linear, offset - _product(linear, ratio - 1))


def fuse_views(probabilities: Tensor, valid: Tensor, to_frame: Tensor, views: int) -> Tensor:
    """Average what is predicted for several views of an image, as seen in each view.

    Predictions are warped to the image's frame, averaged over the views that show a pixel, and
    warped back (DA-SAC, arXiv 2105.00097, section 3.2, "multi-scale fusion").

    Args:
        probabilities: (N * views, K, h, w) float32; the views of an image follow one another.
        valid: (N * views, h, w) bool: False in the padding.
        to_frame: (N * views, 2, 3), from coordinates of a view to those of its image's frame.
        views: how many of an image, one of which shows all of the frame.

    Returns:
        As ``probabilities``; of no meaning in the padding.
    """
    weights = valid[:, None].to(probabilities.dtype)
    maps = torch.cat([probabilities * weights, weights], dim=1)
    in_frame = warp(maps, invert(to_frame)).unflatten(0, (-1, views)).sum(1)
    # The last channel is the sum of the weights, and becomes 1.
    mean = _divide_by_last(in_frame).repeat_interleave(views, dim=0)
    return _divide_by_last(warp(mean, to_frame))[:, :-1]


def _divide_by_last(maps: Tensor) -> Tensor:
    return maps / maps[:, -1:].clamp_min(_LEAST_WEIGHT)


def _product(matrices: Tensor, vectors: Tensor) -> Tensor:
    """(N, 2, 2) times (N, 2), which autocast leaves in float32."""
    return (matrices * vectors[:, None, :]).sum(2)


def _join(linear: Tensor, offset: Tensor) -> Tensor:
    return torch.cat([linear, offset[:, :, None]], dim=2)
