from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ddep.modeling.backbone.windows import WindowLayout, shift_mask, window_layout

SIZES = [(8, 8), (9, 13), (3, 4), (4, 17), (12, 3)]
CPU = torch.device("cpu")


def in_windows(maps: torch.Tensor, layout: WindowLayout) -> torch.Tensor:
    """(B,H,W,C) -> (windows, M*M, C), padded with zeros."""
    area = layout.window_size**2
    windows = maps.new_zeros(sum(layout.counts) * area, maps.shape[-1])
    return windows.index_copy(0, layout.slots, maps.flatten(0, 2)).view(-1, area, maps.shape[-1])


def plain_windows(maps: torch.Tensor, window: int, shift: int) -> torch.Tensor:
    """(B,H,W,C) -> (B, rows, columns, M*M, C): pad, shift and partition, one after the other."""
    batch, height, width, channels = maps.shape
    maps = F.pad(maps, (0, 0, 0, -width % window, 0, -height % window))
    maps = torch.roll(maps, (-shift, -shift), (1, 2))
    parts = [
        [
            maps[:, y : y + window, x : x + window].reshape(batch, window**2, channels)
            for x in range(0, maps.shape[2], window)
        ]
        for y in range(0, maps.shape[1], window)
    ]
    return torch.stack([torch.stack(row, 1) for row in parts], 1)


@pytest.mark.parametrize("height, width", SIZES)
@pytest.mark.parametrize("shift", [0, 1, 2])
def test_windows_hold_the_tokens_of_their_kind(height: int, width: int, shift: int) -> None:
    maps = torch.arange(1.0, 1 + 2 * height * width * 3).view(2, height, width, 3)
    layout = window_layout(2, height, width, 4, shift, CPU)
    expected = plain_windows(maps, 4, shift)
    if shift:
        last = (slice(-1, None), slice(None, -1))
        kinds = [
            expected[:, rows, columns].flatten(0, 2)
            for rows in last[::-1]
            for columns in last[::-1]
        ]
    else:
        kinds = [expected.flatten(0, 2)]
    assert layout.counts == tuple(len(kind) for kind in kinds)
    assert torch.equal(in_windows(maps, layout), torch.cat(kinds))


@pytest.mark.parametrize("window, shift", [(4, 2), (7, 3), (5, 1)])
@pytest.mark.parametrize("rows, columns", [(1, 1), (1, 3), (2, 1), (3, 4)])
def test_mask_separates_tokens_that_are_not_adjacent(
    window: int, shift: int, rows: int, columns: int
) -> None:
    # Tokens of a window may attend to each other if undoing the shift keeps their distance.
    height, width = rows * window, columns * window
    places = torch.stack(
        torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=-1
    )
    layout = window_layout(1, height, width, window, shift, CPU)
    places = in_windows(places[None].float() + 1, layout)
    inside = plain_windows(
        torch.stack(
            torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), dim=-1
        )[None].float(),
        window,
        0,
    ).flatten(0, 2)
    distance = places[:, :, None] - places[:, None]
    adjacent = (distance == (inside[:, :, None] - inside[:, None])).all(-1)
    masks = shift_mask(window, shift).repeat_interleave(torch.tensor(layout.counts), dim=0)
    assert torch.equal(masks, torch.where(adjacent, 0.0, -100.0))
