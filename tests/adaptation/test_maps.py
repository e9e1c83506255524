"""Maps of single images, compared with loops over pixels."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.structures import ImageList
from torch import Tensor

from ddep.adaptation.maps import entropy, image_maps, self_information


def random_maps(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).log_softmax(-3)


def test_certain_pixels_have_entropy_zero_and_uniform_ones_have_one() -> None:
    certain = torch.full((5, 2, 3), -200.0)
    certain[2] = 0.0
    assert torch.equal(entropy(certain), torch.zeros(2, 3))
    for classes in (2, 19, 150):
        uniform = torch.full((classes, 2, 3), -math.log(classes))
        torch.testing.assert_close(entropy(uniform), torch.ones(2, 3))


def test_self_information_and_entropy_are_those_of_a_loop() -> None:
    maps = random_maps(4, 2, 3)
    for y in range(2):
        for x in range(3):
            total = 0.0
            for k in range(4):
                p = math.exp(maps[k, y, x])
                expected = -p * math.log2(p) / math.log2(4)
                assert self_information(maps)[k, y, x].item() == pytest.approx(expected)
                total += expected
            assert entropy(maps)[y, x].item() == pytest.approx(total)


def bilinear(plane: Tensor, y: float, x: float) -> float:
    """At pixel coordinates; outside of the pixels' centres, the nearest one counts."""
    height, width = plane.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = plane[top, left] * (1 - x + left) + plane[top, right] * (x - left)
    lower = plane[bottom, left] * (1 - x + left) + plane[bottom, right] * (x - left)
    return (upper * (1 - y + top) + lower * (y - top)).item()


def test_maps_of_images_are_the_softmax_of_resized_logits_without_padding() -> None:
    logits = torch.randn(2, 3, 2, 3, generator=torch.Generator().manual_seed(0)).double()
    images = ImageList(torch.zeros(2, 3, 8, 12), [(8, 10), (5, 12)])
    maps = image_maps(logits.log_softmax(1), images)
    assert [tuple(m.shape) for m in maps] == [(3, 8, 10), (3, 5, 12)]
    for image, found in zip(logits, maps, strict=True):
        for y in range(found.shape[1]):
            for x in range(found.shape[2]):
                resized = [bilinear(k, (y + 0.5) / 4 - 0.5, (x + 0.5) / 4 - 0.5) for k in image]
                expected = torch.tensor(resized).log_softmax(0)
                torch.testing.assert_close(found[:, y, x].float(), expected)
