"""Read maps of an image, such as class probabilities, where other pixels' centres are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_map(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read maps bilinearly on a grid.

    Args:
        maps: (C, h, w) floating point. Their pixels' centres are at 0.5, 1.5, ..., so that the map
            reaches from 0 to h and from 0 to w; beyond the outer centres, its border is repeated.
        rows: (n,) vertical positions.
        columns: (m,) horizontal positions.

    Returns:
        (C, n, m).
    """
    height, width = maps.shape[-2:]
    y, x = 2 * rows / height - 1, 2 * columns / width - 1
    grid = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), dim=-1)
    return F.grid_sample(
        maps[None], grid[None].to(maps), mode="bilinear", padding_mode="border", align_corners=False
    )[0]
