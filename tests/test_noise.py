"""The arithmetic of noise, against the formulas in float64."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from ddep.errors import UserError
from ddep.noise import (
    FORMULATIONS,
    add_noise,
    draw_sigma,
    noise_scale,
    recover_image,
    recover_noise,
)


@pytest.fixture
def image_and_noise():
    rng = np.random.default_rng(0)
    arrays = rng.normal(0.3, 1.2, (2, 3, 5, 7)), rng.normal(size=(2, 3, 5, 7))
    return tuple(map(torch.from_numpy, arrays))


@pytest.mark.parametrize("sigma", [0.05, 0.48, 3.0])
def test_scaled_is_the_papers_gamma_form(image_and_noise, sigma):
    image, noise = image_and_noise
    gamma = 1 / (1 + sigma**2)
    expected = np.sqrt(gamma) * image + np.sqrt(1 - gamma) * noise
    np.testing.assert_allclose(add_noise(image, noise, sigma, "scaled"), expected, rtol=1e-12)


def test_additive_adds(image_and_noise):
    image, noise = image_and_noise
    np.testing.assert_allclose(
        add_noise(image, noise, 0.7, "additive"), image + 0.7 * noise, rtol=1e-12
    )
    assert noise_scale(0.7, "additive") == 1


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_pixels_are_normalised_first(image_and_noise, formulation):
    normalised, noise = image_and_noise
    mean, std = torch.tensor([[123.7, 116.3, 103.5], [58.4, 57.1, 57.4]])[..., None, None].double()
    pixels = normalised * std + mean
    before = pixels.clone(), noise.clone()
    noisy = add_noise(pixels, noise, 0.48, formulation, mean, std)
    torch.testing.assert_close(noisy, add_noise(normalised, noise, 0.48, formulation))
    assert torch.equal(pixels, before[0])
    assert torch.equal(noise, before[1])


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_recovery_undoes_add_noise(image_and_noise, formulation):
    image, noise = image_and_noise
    noisy = add_noise(image, noise, 0.48, formulation)
    np.testing.assert_allclose(recover_image(noisy, noise, 0.48, formulation), image, atol=1e-12)
    np.testing.assert_allclose(recover_noise(noisy, image, 0.48, formulation), noise, atol=1e-12)


@pytest.mark.parametrize("formulation", FORMULATIONS)
def test_each_image_of_a_batch_has_its_own_sigma(image_and_noise, formulation):
    image, noise = image_and_noise
    sigmas = [0.1, 0.9]
    noisy = torch.stack(
        [add_noise(image[i], noise[i], sigma, formulation) for i, sigma in enumerate(sigmas)]
    )
    sigma = torch.tensor(sigmas, dtype=torch.float64).view(-1, 1, 1, 1)
    torch.testing.assert_close(recover_image(noisy, noise, sigma, formulation), image)
    torch.testing.assert_close(recover_noise(noisy, image, sigma, formulation), noise)


def test_scaled_keeps_the_variance_at_one():
    generator = torch.Generator().manual_seed(0)
    image, noise = torch.randn(2, 1_000_000, generator=generator, dtype=torch.float64)
    assert add_noise(image, noise, 2.0, "scaled").var().item() == pytest.approx(1, abs=0.01)
    assert add_noise(image, noise, 2.0, "additive").var().item() == pytest.approx(5, abs=0.05)


def test_unknown_formulation_names_the_key():
    with pytest.raises(UserError, match="MODEL.DDEP.NOISE is 'salt'; expected one of scaled, add"):
        add_noise(torch.zeros(1), torch.zeros(1), 1.0, "salt")


def test_one_sigma_is_itself():
    assert draw_sigma([0.48]) == 0.48


def test_sigma_is_uniform_in_its_range():
    generator = torch.Generator().manual_seed(0)
    drawn = np.array([draw_sigma([0.2, 1.0], generator) for _ in range(4000)])
    assert drawn.min() >= 0.2
    assert drawn.max() <= 1.0
    counts, _ = np.histogram(drawn, bins=4, range=(0.2, 1.0))
    assert np.all(np.abs(counts - 1000) < 150)


def test_sigma_repeats_with_its_generator():
    first, second = (draw_sigma([0.2, 1.0], torch.Generator().manual_seed(seed)) for seed in (3, 3))
    assert first == second
    assert first != draw_sigma([0.2, 1.0], torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    "sigma", [[], [0.0], [-0.1, 0.5], [1.0, 0.5], [0.1, 0.2, 0.3], ["a"], [[1]], [float("nan")]]
)
def test_impossible_sigma_names_the_key(sigma):
    found = re.escape(f"MODEL.DDEP.SIGMA is {sigma}; expected")
    with pytest.raises(UserError, match=found):
        draw_sigma(sigma)
