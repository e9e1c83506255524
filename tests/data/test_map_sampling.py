from __future__ import annotations

import numpy as np
import torch

from ddep.data.map_sampling import sample_map


def test_bilinear_values_are_those_of_loops() -> None:
    maps = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows, columns = torch.tensor([-1.0, 0.5, 1.3, 3.99]), torch.tensor([0.2, 2.5, 4.0, 4.9, 9.0])
    found = sample_map(maps, rows, columns)
    for i, y in enumerate(rows.tolist()):
        for j, x in enumerate(columns.tolist()):
            v, u = np.clip(y - 0.5, 0, 3), np.clip(x - 0.5, 0, 4)
            top, left = min(int(v), 2), min(int(u), 3)
            down, right = v - top, u - left
            expected = (
                maps[:, top, left] * (1 - down) * (1 - right)
                + maps[:, top, left + 1] * (1 - down) * right
                + maps[:, top + 1, left] * down * (1 - right)
                + maps[:, top + 1, left + 1] * down * right
            )
            torch.testing.assert_close(found[:, i, j], expected, atol=1e-6, rtol=1e-5)


def test_centres_give_back_the_map() -> None:
    maps = torch.arange(12.0).view(1, 3, 4)
    found = sample_map(maps, torch.arange(3) + 0.5, torch.arange(4) + 0.5)
    torch.testing.assert_close(found, maps)
