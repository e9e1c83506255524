"""Prediction of the encoder's features of the clean image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor

from ddep.modeling.clean_features import CleanFeatures


class Cells(Backbone):
    """Feature "cells" of stride 8: the red channel's mean over each cell, times 1, 2, 5 and -3."""

    factors = (1.0, 2.0, 5.0, -3.0)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        means = torch.nn.functional.avg_pool2d(images[:, :1], 8)
        return {"cells": means * torch.tensor(self.factors).view(1, -1, 1, 1)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"cells": ShapeSpec(channels=4, stride=8)}


def test_targets_lie_on_the_enlarged_grid_and_are_normalised() -> None:
    """A horizontal slope stays one in the enlarged image: cells are where they should be."""
    slope = torch.arange(64.0).expand(1, 3, 32, 64) + 1
    target = CleanFeatures("cells", 4, 2, 1.0).of(Cells(), slope)
    assert target.shape == (1, 4, 8, 16)
    assert not target.requires_grad
    factors = np.array(Cells.factors)
    expected = (factors - factors.mean()) / factors.std()
    # All cells are positive multiples of the factors, so that normalising makes them equal.
    np.testing.assert_allclose(
        target.movedim(1, -1).numpy(), np.broadcast_to(expected, (1, 8, 16, 4)), rtol=1e-4
    )
    cells = Cells()
    seen = []
    cells.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    CleanFeatures("cells", 4, 4, 1.0).of(cells, slope)
    [enlarged] = seen
    assert enlarged.shape == (1, 3, 128, 256)
    # Pixel i of the enlarged image is centred on (i + 0.5) / 4 of the original.
    centres = (torch.arange(256) + 0.5) / 4 + 0.5
    # PyTorch's cubics are within 0.05 of a slope; half a pixel of the enlarged image is 0.125.
    torch.testing.assert_close(enlarged[0, 0, 64, 16:-16], centres[16:-16], rtol=0, atol=0.06)


@pytest.mark.parametrize("padded", [False, True])
def test_loss_is_the_mean_over_the_cells_of_the_images(padded: bool) -> None:
    """In float64: predictions averaged over 2x2, two images of which one covers a half."""
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(2, 4, 8, 16, generator=generator)
    target = torch.randn(2, 4, 4, 8, generator=generator)
    valid = torch.ones(2, 1, 32, 64)
    if padded:
        valid[1, :, :, 32:] = 0
    found = CleanFeatures("cells", 4, 1, 0.5).loss(
        torch.nn.Identity(), prediction, target, valid if padded else None, valid.sum()
    )
    means = prediction.double().numpy().reshape(2, 4, 4, 2, 8, 2).mean(axis=(3, 5))
    errors = ((means - target.double().numpy()) ** 2).mean(axis=1)
    cells = [errors[0], errors[1, :, :4] if padded else errors[1]]
    expected = np.concatenate([part.ravel() for part in cells]).mean()
    assert found.item() == pytest.approx(0.5 * expected, rel=1e-5)
