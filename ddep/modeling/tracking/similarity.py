"""How alike two instances are, by their masks and by their queries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Pixels that are compared at once, which bounds the memory of large masks.
_BLOCK = 2**18


def mask_overlaps(one: Tensor, other: Tensor) -> Tensor:
    """Compute the intersection over union of all pairs of masks.

    Args:
        one: (M, P) bool: M masks of P pixels, which may be those of several frames.
        other: (N, P) bool.

    Returns:
        (M, N) float64, 0 for two empty masks.
    """
    intersections = torch.zeros(len(one), len(other), dtype=torch.float64)
    for pixels, others in zip(one.split(_BLOCK, 1), other.split(_BLOCK, 1), strict=True):
        intersections += pixels.float() @ others.float().T
    unions = one.sum(1)[:, None] + other.sum(1)[None, :] - intersections
    return intersections / unions.clamp(min=1)


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Compute the cosine of all pairs of vectors, (M, C) and (N, C): (M, N) float64, -1 to 1."""
    return F.normalize(one.double(), dim=1) @ F.normalize(other.double(), dim=1).T
