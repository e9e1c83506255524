"""Feature maps of a plain vision transformer at another stride."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_tokens(tokens: Tensor, patch_size: int, stride: int) -> Tensor:
    """Resize a feature map from one stride to another, keeping positions in place.

    Finer strides are interpolated bilinearly; coarser ones take the average of the area that each
    cell covers. Both use the ratio of the strides, not of the sizes, which padding distorts.

    Args:
        tokens: (B,C,h,w); cell (i, j) starts at pixel (i, j) * ``patch_size``.
        patch_size: its stride in pixels.
        stride: the stride wanted.

    Returns:
        (B, C, floor(h * patch_size / stride), floor(w * patch_size / stride)).
    """
    if stride <= patch_size:
        return F.interpolate(tokens, scale_factor=patch_size / stride, mode="bilinear")
    rows, columns = (_area_weights(size, patch_size, stride, tokens) for size in tokens.shape[-2:])
    return rows @ tokens @ columns.T


def _area_weights(size: int, patch_size: int, stride: int, like: Tensor) -> Tensor:
    """(cells, size): the fraction of each cell that each patch covers, along one axis."""
    cells = torch.arange(size * patch_size // stride, device=like.device)[:, None] * stride
    patches = torch.arange(size, device=like.device) * patch_size
    ends = torch.minimum(cells + stride, patches + patch_size)
    overlap = (ends - torch.maximum(cells, patches)).clamp(min=0)
    return overlap.to(like.dtype) / stride
