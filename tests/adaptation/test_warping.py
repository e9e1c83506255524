"""Affine views against plain loops in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddep.adaptation.warping import fuse_views, invert, on_canvas, warp
from tests.adaptation.warping_loops import fuse_by_loops, warp_by_loops

GENERATOR = torch.Generator().manual_seed(0)
# A crop of rows 3 to 13 and columns 4 to 16 of a 20x32 frame, and the same flipped.
CROP = [[12 / 32, 0, (2 * 4 + 12) / 32 - 1], [0, 10 / 20, (2 * 3 + 10) / 20 - 1]]
FLIPPED = [[-12 / 32, 0, (2 * 4 + 12) / 32 - 1], [0, 10 / 20, (2 * 3 + 10) / 20 - 1]]
ROTATED = [[0.8, 0.3, 0.1], [-0.2, 0.7, -0.05]]
IDENTITY = [[1, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize("affine", [CROP, FLIPPED, ROTATED])
def test_warping_is_bilinear_between_pixel_centres(affine: list[list[float]]) -> None:
    maps = torch.rand(2, 3, 6, 9, dtype=torch.float64, generator=GENERATOR)
    matrix = torch.tensor(affine, dtype=torch.float64)
    warped = warp(maps, torch.stack([matrix, matrix]))
    for one, expected in zip(warped, maps, strict=True):
        expected = warp_by_loops(expected.numpy(), matrix.numpy())
        np.testing.assert_allclose(one, expected, atol=1e-12)


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("affine", [CROP, FLIPPED, ROTATED])
def test_affine_and_inverse_are_the_identity_away_from_the_border(
    affine: list[list[float]], precision: torch.dtype | None
) -> None:
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(64.0), indexing="ij")
    # Bilinear interpolation keeps linear maps.
    maps = torch.stack([rows, columns, 3 - rows + 2 * columns])[None]
    matrix = torch.tensor([affine])
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
        ones = warp(warp(torch.ones_like(maps), matrix), invert(matrix))
        back = warp(warp(maps, matrix), invert(matrix))
    inside = ones == 1
    assert inside.float().mean() > 0.15
    torch.testing.assert_close(back[inside], maps[inside], rtol=0, atol=1e-4)


def test_a_padded_image_is_warped_as_alone() -> None:
    affines = torch.tensor([CROP, FLIPPED, ROTATED], dtype=torch.float64)
    sizes = [(6, 9), (8, 12), (5, 12)]
    canvases = torch.zeros(3, 2, 8, 12, dtype=torch.float64)
    for canvas, (height, width) in zip(canvases, sizes, strict=True):
        canvas[:, :height, :width] = torch.rand(2, height, width, generator=GENERATOR)
    warped = warp(canvases, on_canvas(affines, sizes, (8, 12)))
    for canvas, affine, (height, width), one in zip(canvases, affines, sizes, warped, strict=True):
        alone = warp_by_loops(canvas[:, :height, :width].numpy(), affine.numpy())
        np.testing.assert_allclose(one[:, :height, :width], alone, atol=1e-12)


def test_fusing_is_the_mean_of_the_views_that_show_a_pixel() -> None:
    """Three views of two images, the second of which is padded."""
    views = torch.tensor([IDENTITY, CROP, FLIPPED], dtype=torch.float64).repeat(2, 1, 1)
    sizes, canvas = [(20, 32)] * 3 + [(10, 16)] * 3, (20, 32)
    valid = torch.zeros(6, *canvas, dtype=torch.bool)
    for mask, (height, width) in zip(valid, sizes, strict=True):
        mask[:height, :width] = True
    probabilities = torch.rand(6, 4, *canvas, dtype=torch.float64, generator=GENERATOR).softmax(1)
    to_frame = on_canvas(views, sizes, canvas)
    fused = fuse_views(probabilities, valid, to_frame, views=3)
    for first, (height, width) in ((0, (20, 32)), (3, (10, 16))):
        expected = fuse_by_loops(probabilities[first : first + 3, :, :height, :width], views[:3])
        actual = fused[first : first + 3, :, :height, :width]
        np.testing.assert_allclose(actual, expected, atol=1e-9)
        np.testing.assert_allclose(actual.sum(1), 1, atol=1e-9)


def test_views_that_agree_are_not_changed() -> None:
    constant = torch.tensor([0.2, 0.5, 0.3])[:, None, None].expand(3, 3, 20, 32)
    valid = torch.ones(3, 20, 32, dtype=torch.bool)
    fused = fuse_views(constant, valid, torch.tensor([IDENTITY, CROP, FLIPPED]), views=3)
    torch.testing.assert_close(fused, constant)
