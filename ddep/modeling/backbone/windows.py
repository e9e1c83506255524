"""Partition feature maps into Swin's windows (arXiv 2103.14030, sections 3.2 and 3.3)."""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor


class WindowLayout(NamedTuple):
    """Where each token of a batch of feature maps lies among the tokens of all windows.

    After the cyclic shift, only the windows of the last row and the last column hold tokens that
    are not neighbours on the map. So there are four kinds of windows, each with its own attention
    mask. Windows are ordered by kind, which lets attention take one small mask per kind instead of
    one per window (:func:`ddep.ops.window_attention`).

    Attributes:
        slots: (B*H*W,) int64; entry i is the place of map token i among the tokens of all windows.
        counts: windows of each kind over the whole batch. Shifted: interior, last column, last
            row, corner; else one kind.
        window_size: M; a window has M*M tokens.
    """

    slots: Tensor
    counts: tuple[int, ...]
    window_size: int


def window_layout(
    batch: int, height: int, width: int, window_size: int, shift: int, device: torch.device
) -> WindowLayout:
    """Lay windows over maps of any size.

    The map is padded at the right and the bottom to a multiple of the window, then shifted
    cyclically by ``shift`` to the left and up, as the original does.

    Args:
        batch, height, width: size of the maps (B, H, W).
        window_size: side of a window.
        shift: 0 up to ``window_size`` - 1.
        device: where ``slots`` goes.
    """
    # Sums of positive numbers, because ONNX divides negative ones towards zero.
    rows, columns = ((size + window_size - 1) // window_size for size in (height, width))
    row = _shifted(height, shift, rows * window_size, device)[:, None]
    column = _shifted(width, shift, columns * window_size, device)
    image = torch.arange(batch, device=device)[:, None, None]
    of_row, of_column = row // window_size, column // window_size
    window = (image * rows + of_row) * columns + of_column
    counts = (batch * rows * columns,)
    if shift:
        kinds = (rows - 1) * (columns - 1), rows - 1, columns - 1, 1
        counts = tuple(batch * n for n in kinds)
        _, *starts = accumulate(counts[:-1], initial=0)
        last_row, last_column = of_row == rows - 1, of_column == columns - 1
        # Each window's place among those of its kind, image by image and row by row.
        window = (image * (rows - 1) + of_row) * (columns - 1) + of_column
        window = torch.where(last_column, starts[0] + image * kinds[1] + of_row, window)
        window = torch.where(last_row, starts[1] + image * kinds[2] + of_column, window)
        window = torch.where(last_row & last_column, starts[2] + image, window)
    slots = (window * window_size + row % window_size) * window_size + column % window_size
    return WindowLayout(slots.flatten(), counts, window_size)


def _shifted(length: int, shift: int, padded: int, device: torch.device) -> Tensor:
    """Where each position of an axis is after the cyclic shift of ``padded`` positions."""
    places = torch.arange(length, device=device) - shift
    return torch.where(places < 0, places + padded, places)


def shift_mask(window_size: int, shift: int) -> Tensor:
    """Attention masks that separate tokens which only the cyclic shift made neighbours.

    Returns:
        (4, M*M, M*M) float32, one mask per kind of :class:`WindowLayout`: 0 where two tokens may
        attend to each other, -100 (the original's value) where not.
    """
    wrapped = (torch.arange(window_size) >= window_size - shift).long()
    rows, columns = wrapped[:, None], wrapped[None, :]
    none = torch.zeros_like(rows * columns)
    parts = torch.stack([none, none + columns, none + rows, 2 * rows + columns]).flatten(1)
    return -100.0 * (parts[:, :, None] != parts[:, None, :]).float()
