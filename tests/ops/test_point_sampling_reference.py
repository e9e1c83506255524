"""Bilinear interpolation of binary masks at points."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from ddep.ops.point_sampling_reference import sample_masks


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_agrees_with_grid_sample(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(4, 7, 13, generator=generator) > 0.5).to(dtype)
    points = torch.rand(6, 50, 2, generator=generator)
    points[:, :4] = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    rows = torch.tensor([2, 0, 3, 3, 1, 0])

    values = sample_masks(masks, rows, points)
    wide = sample_masks(masks, rows, points.double())

    grid = (2 * points.double() - 1)[:, :, None]
    expected = F.grid_sample(masks[rows][:, None].double(), grid, align_corners=False)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), expected[:, 0, :, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(wide, expected[:, 0, :, 0], atol=1e-12, rtol=0)


def test_pixel_centres_edges_and_outside() -> None:
    mask = torch.zeros(1, 3, 4, dtype=torch.bool)
    mask[0, 1, 2] = mask[0, 0, 0] = True
    # The centre of pixel (1, 2), its left edge, its lower right corner, the corner of the image.
    points = torch.tensor([[2.5 / 4, 1.5 / 3], [2 / 4, 1.5 / 3], [3 / 4, 2 / 3], [0, 0]])
    values = sample_masks(mask, torch.tensor([0]), points[None])
    torch.testing.assert_close(values, torch.tensor([[1.0, 0.5, 0.25, 0.25]]))


def test_no_masks() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    values = sample_masks(torch.zeros(0, 5, 6, dtype=torch.bool), none, torch.zeros(0, 9, 2))
    assert values.shape == (0, 9)
