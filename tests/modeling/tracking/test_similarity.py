from __future__ import annotations

import numpy as np
import pytest
import torch

from ddep.modeling.tracking import similarity
from ddep.modeling.tracking.similarity import cosines, mask_overlaps


@pytest.mark.parametrize("block", [7, 1000])
def test_overlaps_are_intersections_over_unions(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(similarity, "_BLOCK", block)
    generator = np.random.default_rng(0)
    one, other = generator.random((3, 20)) < 0.5, generator.random((4, 20)) < 0.3
    one[1] = other[2] = False
    found = mask_overlaps(torch.from_numpy(one), torch.from_numpy(other))
    for row, column in np.ndindex(3, 4):
        union = (one[row] | other[column]).sum()
        expected = (one[row] & other[column]).sum() / union if union else 0.0
        assert found[row, column].item() == pytest.approx(expected)


def test_cosines_are_those_of_the_angles() -> None:
    one, other = torch.randn(3, 5), torch.randn(2, 5)
    found = cosines(one, other)
    for row, column in np.ndindex(3, 2):
        a, b = one[row].double().numpy(), other[column].double().numpy()
        expected = a @ b / np.sqrt((a @ a) * (b @ b))
        assert found[row, column].item() == pytest.approx(expected)
