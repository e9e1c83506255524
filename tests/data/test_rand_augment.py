from __future__ import annotations

import pytest
import torch

from ddep.data.rand_augment import build_rand_augment, cut_out


@pytest.fixture
def image() -> torch.Tensor:
    """Every row and column has a grey of its own, so that moved pixels show."""
    ramp = torch.arange(12 * 20).view(1, 12, 20) % 251
    return (ramp + torch.tensor([0, 2, 4])[:, None, None]).to(torch.uint8)


def test_equal_pixels_stay_equal_and_where_they_are() -> None:
    halves = torch.zeros(3, 16, 16, dtype=torch.uint8)
    halves[:, :, 8:] = torch.tensor([200, 90, 30], dtype=torch.uint8)[:, None, None]
    change = build_rand_augment("RGB")
    different = 0
    for seed in range(60):
        torch.manual_seed(seed)
        changed = change(halves)
        assert changed.dtype == torch.uint8 and changed.shape == halves.shape
        # Sharpness looks at neighbours: leave out the pixels beside the edge.
        left, right = changed[:, :, :7], changed[:, :, 9:]
        assert (left == left[:, :1, :1]).all() and (right == right[:, :1, :1]).all()
        different += int(not torch.equal(changed, halves))
    assert 20 < different < 60


def test_the_order_of_channels_makes_no_difference(image: torch.Tensor) -> None:
    for seed in range(30):
        torch.manual_seed(seed)
        expected = build_rand_augment("RGB")(image)
        torch.manual_seed(seed)
        found = build_rand_augment("BGR")(image.flip(0)).flip(0)
        assert torch.equal(found, expected)


def test_the_cut_out_square_and_nothing_else_is_grey(image: torch.Tensor) -> None:
    sides = set()
    original = image.clone()
    for seed in range(40):
        torch.manual_seed(seed)
        painted, (top, left, bottom, right) = cut_out(image)
        assert 0 <= top < bottom <= 12 and 0 <= left < right <= 20
        sides.add((bottom - top, right - left))
        assert (painted[:, top:bottom, left:right] == 128).all()
        kept = torch.ones(12, 20, dtype=torch.bool)
        kept[top:bottom, left:right] = False
        assert torch.equal(painted[:, kept], original[:, kept])
    assert torch.equal(image, original)
    assert max(sides) == (4, 4)
    assert len(sides) > 1  # at the border it is smaller
