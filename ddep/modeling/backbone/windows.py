"""Partition feature maps into Swin's windows (arXiv 2103.14030, sections 3.2 and 3.3)."""

from __future__ import annotations

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
    rows, columns = -(-height // window_size), -(-width // window_size)
    row = ((torch.arange(height, device=device) - shift) % (rows * window_size))[:, None]
    column = (torch.arange(width, device=device) - shift) % (columns * window_size)
    image = torch.arange(batch, device=device)[:, None, None]
    window = (image * rows + row // window_size) * columns + column // window_size
    counts = (rows * columns,)
    if shift:
        last_row = torch.arange(rows, device=device)[:, None] == rows - 1
        last_column = torch.arange(columns, device=device) == columns - 1
        kind = (2 * last_row.long() + last_column).flatten().repeat(batch)
        # The inverse of the sorting order: each window's place among all.
        window = kind.argsort(stable=True).argsort()[window]
        counts = (rows - 1) * (columns - 1), rows - 1, columns - 1, 1
    slots = (window * window_size + row % window_size) * window_size + column % window_size
    return WindowLayout(slots.flatten(), tuple(batch * n for n in counts), window_size)


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
