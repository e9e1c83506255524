"""The losses of denoising, compared with loops over cells and pixels in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddep.modeling.denoising_loss import DenoisingLoss, Truth
from tests.modeling.meta_arch.test_denoiser import FORMULAS

SIZES = [(24, 30), (13, 18)]  # the second image ends within cells of all sizes
HEIGHT, WIDTH = 24, 30
PIXELS = sum(height * width for height, width in SIZES)


def make_truth() -> Truth:
    generator = torch.Generator().manual_seed(0)
    shape = (len(SIZES), 3, HEIGHT, WIDTH)
    noise, clean = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    valid = torch.zeros(len(SIZES), 1, HEIGHT, WIDTH, dtype=torch.float64)
    for i, (height, width) in enumerate(SIZES):
        valid[i, :, :height, :width] = 1
    return Truth(noise, clean, valid)  # values at padding are arbitrary


def mean_over_cells(kind: str, prediction: np.ndarray, clean: np.ndarray, cell: int) -> float:
    """The mean of the cells' errors, weighted by their numbers of image pixels."""
    total, pixels = 0.0, 0
    for i, (height, width) in enumerate(SIZES):
        for y in range(prediction.shape[2]):
            for x in range(prediction.shape[3]):
                rows = slice(y * cell, min((y + 1) * cell, height))
                columns = slice(x * cell, min((x + 1) * cell, width))
                part = clean[i, :, rows, columns].reshape(3, -1)
                if part.size:
                    error = prediction[i, :, y, x] - part.mean(axis=1)
                    total += part.shape[1] * FORMULAS[kind](error).mean()
                    pixels += part.shape[1]
    assert pixels == PIXELS
    return total / pixels


@pytest.mark.parametrize("target", ["noise", "image"])
@pytest.mark.parametrize("kind", list(FORMULAS))
def test_losses_of_all_scales_against_loops(kind: str, target: str) -> None:
    """All losses are of this kind; those of the scales compare clean images for any target."""
    loss = DenoisingLoss(target=target, loss=kind, denoise_weight=2.0, scale_weight=0.6)
    truth = make_truth()
    generator = torch.Generator().manual_seed(1)
    prediction = 2 * torch.randn(truth.clean.shape, generator=generator, dtype=torch.float64)
    scales = {}
    for stride in (32, 16, 8):
        cell = stride // 4
        size = (len(SIZES), 3, -(-HEIGHT // cell), -(-WIDTH // cell))
        scales[stride] = 2 * torch.randn(size, generator=generator, dtype=torch.float64)
    normalisers = {"pixels": torch.tensor(PIXELS, dtype=torch.float64)}
    losses = loss(prediction, scales, truth, normalisers)

    difference = prediction - (truth.noise if target == "noise" else truth.clean)
    errors = [FORMULAS[kind](difference[i, :, :h, :w].numpy()) for i, (h, w) in enumerate(SIZES)]
    expected = {"loss_denoise": 2 * sum(e.sum() for e in errors) / (3 * PIXELS)}
    for stride in (8, 16, 32):
        mean = mean_over_cells(kind, scales[stride].numpy(), truth.clean.numpy(), stride // 4)
        expected[f"loss_denoise_s{stride}"] = 0.2 * mean
    found = {name: value.item() for name, value in losses.items()}
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("width", [30, 32])
def test_a_batch_without_padding_needs_no_mask(width: int) -> None:
    """Cells of all sizes fill 32 columns, and cells of 8 extend beyond 30."""
    loss = DenoisingLoss(target="noise", loss="huber", denoise_weight=1.0, scale_weight=1.0)
    noise, clean, prediction = torch.randn(3, 2, 3, HEIGHT, width, dtype=torch.float64)
    scales = {4 * c: torch.randn(2, 3, HEIGHT // c, -(-width // c)).double() for c in (2, 4, 8)}
    pixels = {"pixels": torch.tensor(2.0 * HEIGHT * width)}
    everywhere = torch.ones(2, 1, HEIGHT, width, dtype=torch.float64)
    expected = loss(prediction, scales, Truth(noise, clean, everywhere), pixels)
    found = loss(prediction, scales, Truth(noise, clean, None), pixels)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    alone = loss(prediction, {}, Truth(noise, None, None), pixels)
    torch.testing.assert_close(alone["loss_denoise"], expected["loss_denoise"])


def test_losses_are_divided_by_the_given_count() -> None:
    loss = DenoisingLoss(target="image", loss="l2", denoise_weight=1.0, scale_weight=1.0)
    truth = make_truth()
    batch = [{"image": torch.empty(3, *size)} for size in SIZES]
    assert loss.normalisers(batch) == {"pixels": PIXELS}
    scales = {8: torch.zeros(2, 3, 12, 15, dtype=torch.float64)}
    found = [
        loss(torch.zeros_like(truth.clean), scales, truth, {"pixels": torch.tensor(count)})
        for count in (PIXELS, 2 * PIXELS)
    ]
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value / 2)
