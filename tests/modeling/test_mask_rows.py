"""Resizing by blocks of rows, compared with PyTorch's resizing of whole maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddep.modeling import mask_rows
from ddep.modeling.mask_rows import Resize, blocks_of_rows, resized_size


def by_interpolate(maps: Tensor, resizes: list[Resize]) -> Tensor:
    for size, (height, width) in resizes:
        maps = F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
        maps = maps[:, :height, :width]
    return maps


def together(maps: Tensor, resizes: list[Resize]) -> tuple[Tensor, int]:
    """All blocks as one, after checking that they follow each other, and their number."""
    blocks, end = [], 0
    for rows, block in blocks_of_rows(maps, resizes):
        assert rows.start == end
        assert block.shape[:2] == (len(maps), rows.stop - rows.start)
        blocks.append(block)
        end = rows.stop
    return torch.cat(blocks, 1), len(blocks)


@pytest.mark.parametrize("elements", [1, 400, 10**6])
@pytest.mark.parametrize(
    "resizes",
    [
        [],
        [Resize((13, 17), (13, 17))],
        [Resize((13, 17), (11, 15))],
        [Resize((52, 68), (49, 61))],
        [Resize((52, 68), (49, 61)), Resize((49, 61), (49, 61))],
        [Resize((52, 68), (49, 61)), Resize((75, 83), (75, 83))],
        [Resize((52, 68), (49, 61)), Resize((23, 19), (23, 19))],
        [Resize((13, 68), (13, 61)), Resize((1, 90), (1, 90))],
        [Resize((52, 17), (1, 17)), Resize((40, 1), (40, 1))],
    ],
)
def test_blocks_against_whole_maps(
    resizes: list[Resize], elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_rows, "CPU_BLOCK", elements)
    maps = torch.randn(3, 13, 17, generator=torch.Generator().manual_seed(0))
    expected = by_interpolate(maps, resizes)
    found, count = together(maps, resizes)
    assert tuple(resized_size(maps, resizes)) == expected.shape[1:]
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)
    if elements == 1:
        assert count == expected.shape[1]  # one row at a time
    if elements == 10**6:
        assert count == 1


def test_positions_of_a_ramp() -> None:
    """Pixels' values are their centres, in pixels of the small map."""
    ramp = torch.arange(8.0)[None, :, None] + 0.5
    found, _ = together(ramp.expand(1, 8, 3), [Resize((20, 3), (20, 3))])
    expected = ((torch.arange(20.0) + 0.5) * 8 / 20).clamp(0.5, 7.5)
    torch.testing.assert_close(found[0], expected[:, None].expand(20, 3))


def test_no_maps_have_no_blocks() -> None:
    assert list(blocks_of_rows(torch.empty(0, 4, 4), [Resize((8, 8), (8, 8))])) == []
