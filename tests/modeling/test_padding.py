"""Which cells of a feature map show an image, compared with DETR's resizing of a pixel mask."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from ddep.modeling.padding import valid_cells


def test_cells_are_the_resized_mask_of_pixels() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        stride = int(rng.choice([4, 16, 32]))
        padded = rng.integers(1, 200, 2)
        sizes = [tuple(int(side) for side in rng.integers(1, padded + 1)) for _ in range(3)]
        cells = tuple(int(side) for side in -(-padded // stride))
        pixels = torch.zeros(3, *padded)
        for mask, (height, width) in zip(pixels, sizes, strict=True):
            mask[:height, :width] = 1
        expected = F.interpolate(pixels[None], size=cells)[0] > 0
        found = valid_cells(sizes, tuple(padded.tolist()), cells, "cpu")
        if found is None:
            assert expected.all()
        else:
            assert torch.equal(found, expected)
            assert not found.all()


def test_a_cell_that_shows_one_pixel_is_valid() -> None:
    found = valid_cells([(32, 64), (33, 1)], (64, 64), (2, 2), "cpu")
    assert found.tolist() == [[[True, True], [False, False]], [[True, False], [True, False]]]
    assert valid_cells([(33, 64), (64, 33)], (64, 64), (2, 2), "cpu") is None
