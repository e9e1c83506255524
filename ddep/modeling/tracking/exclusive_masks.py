"""Masks of which no two share a pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddep.modeling.mask_rows import Resize, blocks_of_rows, resized_size


@torch.no_grad()
def exclusive_masks(logits: Tensor, resizes: Sequence[Resize] = ()) -> Tensor:
    """Give each pixel to the mask of the largest logit, or to none if that is not positive.

    Args:
        logits: (N, h, w) mask logits.
        resizes: steps from (h, w) to (H, W), see :func:`ddep.modeling.mask_rows.blocks_of_rows`.

    Returns:
        (N, H, W) bool.
    """
    masks = logits.new_empty(len(logits), *resized_size(logits, resizes), dtype=torch.bool)
    numbers = torch.arange(len(logits), device=logits.device)[:, None, None]
    for rows, block in blocks_of_rows(logits, resizes):
        largest = block.max(0)
        masks[:, rows] = (numbers == largest.indices) & (largest.values > 0)
    return masks
