"""The discriminator's layers and losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from ddep.adaptation.discriminator import SOURCE, TARGET, Discriminator


def make_discriminator() -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(3).double()


def test_layers_are_the_published_ones() -> None:
    discriminator = make_discriminator()
    maps = torch.randn(2, 3, 64, 70, dtype=torch.float64)
    weights = list(discriminator.parameters())
    widths = [3, 64, 128, 256, 512, 1]
    features = maps
    for i, (weight, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
        assert weight.shape == (widths[i + 1], widths[i], 4, 4)
        features = F.conv2d(features, weight, bias, stride=2, padding=1)
        if i < 4:
            features = torch.where(features > 0, features, 0.2 * features)
    found = discriminator(maps)
    assert found.shape == (2, 1, 2, 2)
    torch.testing.assert_close(found, features)


def test_small_maps_are_padded() -> None:
    discriminator = make_discriminator()
    maps = torch.randn(1, 3, 20, 40, dtype=torch.float64)
    padded = torch.cat([maps, torch.zeros(1, 3, 12, 40, dtype=torch.float64)], dim=2)
    assert discriminator(maps).shape == (1, 1, 1, 1)
    assert torch.equal(discriminator(maps), discriminator(padded))


@pytest.mark.parametrize(("domain", "sign"), [(SOURCE, 1), (TARGET, -1)])
def test_losses_are_cross_entropies_of_the_domain(domain: float, sign: int) -> None:
    discriminator = make_discriminator()
    maps = torch.randn(3, 64, 96, dtype=torch.float64, requires_grad=True)
    logits = discriminator(maps[None]).flatten().tolist()
    expected = sum(math.log(1 + math.exp(sign * z)) for z in logits) / len(logits)
    assert discriminator.loss(maps, domain).item() == pytest.approx(expected)
    fooling = discriminator.fooling_loss(maps, domain)
    assert fooling.item() == pytest.approx(expected)
    fooling.backward()
    assert maps.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in discriminator.parameters())
    discriminator.loss(maps.detach(), domain).backward()
    assert all(weight.grad.abs().sum() > 0 for weight in discriminator.parameters())
