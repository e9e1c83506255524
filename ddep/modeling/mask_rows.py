"""Masks at the size of the results, of which only some rows exist at a time.

At that size the masks of all queries would be the largest tensors of inference: 400 MB for 100
queries and 1024x1024 pixels. Some of their rows stay in a CPU's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Elements of a block: 2 MiB of float32 on CPUs; GPUs are fast with few large blocks.
CPU_BLOCK, GPU_BLOCK = 2**19, 2**26


class Resize(NamedTuple):
    """A step of resizing: to ``size``, of which the first ``kept`` rows and columns are kept."""

    size: tuple[int, int]
    kept: tuple[int, int]


def resized_size(maps: Tensor, resizes: Sequence[Resize]) -> tuple[int, int]:
    """Height and width of ``maps`` (N, h, w) after ``resizes``."""
    return tuple(resizes[-1].kept if resizes else maps.shape[-2:])


def blocks_of_rows(maps: Tensor, resizes: Sequence[Resize]) -> Iterator[tuple[slice, Tensor]]:
    """Resize maps bilinearly, some rows at a time.

    Together the blocks are what ``F.interpolate(..., align_corners=False)`` and cropping give, step
    by step, up to rounding.

    Args:
        maps: (N, h, w) floating point.
        resizes: the steps; none leaves the maps as they are.

    Yields:
        Rows of the result, from the top, and these rows of all maps (N, rows, W), which may be a
        view of ``maps``. Nothing if there are no maps.
    """
    if len(maps) == 0:
        return
    height, width = resized_size(maps, resizes)
    widest = max([width, *(resize.size[1] for resize in resizes)])
    elements = CPU_BLOCK if maps.device.type == "cpu" else GPU_BLOCK
    count = max(1, elements // (len(maps) * widest))
    for start in range(0, height, count):
        rows = slice(start, min(start + count, height))
        yield rows, _resized_rows(maps, resizes, rows)


def _resized_rows(maps: Tensor, resizes: Sequence[Resize], rows: slice) -> Tensor:
    """(N, h, w) -> the ``rows`` of the resized maps, computed from the rows that they need."""
    if not resizes:
        return maps[:, rows]
    *earlier, (size, kept) = resizes
    height, width = resized_size(maps, earlier)
    if size[0] == height:
        block = _resized_rows(maps, earlier, rows)
    else:
        # As F.interpolate places pixels: their centres are at 0.5, 1.5, ...
        position = (torch.arange(rows.start, rows.stop) + 0.5) * (height / size[0]) - 0.5
        position = position.clamp(0, height - 1)
        above = position.long()
        below = (above + 1).clamp(max=height - 1)
        needed = slice(int(above[0]), int(below[-1]) + 1)
        block = _resized_rows(maps, earlier, needed)
        above, below, weight = (
            values.to(maps.device)
            for values in (above - needed.start, below - needed.start, position.frac()[:, None])
        )
        weight = weight.to(maps.dtype)
        block = torch.lerp(block.index_select(1, above), block.index_select(1, below), weight)
    if size[1] != width:
        block = F.interpolate(block, size=size[1], mode="linear", align_corners=False)
    return block[:, :, : kept[1]]
