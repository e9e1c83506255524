from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from ddep.config_checks import check_probability, check_range
from ddep.data.photometric import build_photometric, check_color_jitter
from ddep.data.seeding import seeded
from ddep.errors import UserError

NOTHING = {
    "color_jitter": (0.0, 0.0, 0.0, 0.0),
    "jitter_probability": 0.0,
    "gray_probability": 0.0,
    "blur_sigma": (0.1, 2.0),
    "blur_probability": 0.0,
    "image_format": "RGB",
}
EVERYTHING = {
    "color_jitter": (0.4, 0.4, 0.4, 0.1),
    "jitter_probability": 0.5,
    "gray_probability": 0.5,
    "blur_probability": 0.5,
}


@pytest.fixture
def image() -> Tensor:
    """(3, 24, 30) uint8, RGB."""
    return torch.randint(0, 256, (3, 24, 30), dtype=torch.uint8, generator=torch.Generator())


ADJUSTMENTS = {
    "brightness": (0, F.adjust_brightness, (0.2, 1.8)),
    "contrast": (1, F.adjust_contrast, (0.2, 1.8)),
    "saturation": (2, F.adjust_saturation, (0.2, 1.8)),
    "hue": (3, F.adjust_hue, (-0.4, 0.4)),
}


@pytest.mark.parametrize("kind", ADJUSTMENTS)
def test_a_jitter_of_one_kind_is_its_adjustment_by_a_factor_in_range(image, kind):
    place, adjust, (lowest, highest) = ADJUSTMENTS[kind]
    strengths = [0.0] * 4
    strengths[place] = highest - (lowest + highest) / 2
    change = build_photometric(**{**NOTHING, "color_jitter": strengths, "jitter_probability": 1.0})
    candidates = torch.linspace(lowest, highest, 801)
    adjusted = torch.stack([adjust(image, factor.item()) for factor in candidates]).double()
    factors = []
    torch.manual_seed(0)
    for _ in range(12):
        distances = (adjusted - change(image).double()).abs().amax((1, 2, 3))
        assert distances.min() <= 2  # grey levels, half a step of the factor away
        factors.append(candidates[distances.argmin()].item())
    middle = (lowest + highest) / 2
    assert min(factors) < middle - (highest - lowest) / 8
    assert max(factors) > middle + (highest - lowest) / 8


def test_greyscale_is_the_luma_of_the_colours(image):
    grey = build_photometric(**{**NOTHING, "gray_probability": 1.0})(image)
    red, green, blue = image.double()
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    assert (grey.double() - luma).abs().max() < 1.05
    assert grey.shape == image.shape


@pytest.mark.parametrize("sigma", [0.15, 0.8, 2.0])
def test_blur_is_the_average_with_gaussian_weights(image, sigma):
    blurred = build_photometric(
        **{**NOTHING, "blur_sigma": (sigma, sigma), "blur_probability": 1.0}
    )(image)
    y, x, reach = 12, 15, 11
    total = weights = 0.0
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            weight = math.exp(-(dy * dy + dx * dx) / (2 * sigma * sigma))
            total = total + weight * image[:, y + dy, x + dx].double()
            weights += weight
    assert (blurred[:, y, x].double() - total / weights).abs().max() <= 0.6
    assert blurred.dtype == torch.uint8


def test_the_standard_deviation_of_the_blur_is_drawn_from_its_range():
    point = torch.zeros(3, 41, 41, dtype=torch.uint8)
    point[:, 20, 20] = 255
    change = build_photometric(**{**NOTHING, "blur_sigma": (0.6, 1.5), "blur_probability": 1.0})
    torch.manual_seed(0)
    peaks = [int(change(point)[0, 20, 20]) for _ in range(30)]
    # 255 times the square of a one-dimensional kernel's largest weight.
    assert 18 <= min(peaks) < 30
    assert 70 < max(peaks) <= 113


def test_images_smaller_than_the_kernel_are_blurred():
    change = build_photometric(**{**NOTHING, "blur_sigma": (2.0, 2.0), "blur_probability": 1.0})
    assert change(torch.full((3, 1, 5), 9, dtype=torch.uint8)).tolist() == [[[9] * 5]] * 3


def test_channels_in_reverse_order_have_the_same_colours(image):
    rgb = build_photometric(**{**NOTHING, **EVERYTHING})
    bgr = build_photometric(**{**NOTHING, **EVERYTHING, "image_format": "BGR"})
    results = []
    for position in range(20):
        with seeded(1, position):
            results.append(rgb(image))
        with seeded(1, position):
            assert torch.equal(bgr(image.flip(0)).flip(0), results[-1])
    assert len({result.numpy().tobytes() for result in results}) > 10


def test_the_global_generator_decides_all_of_it(image):
    change = build_photometric(**{**NOTHING, **EVERYTHING})
    before = image.clone()
    for position in range(10):
        with seeded(2, position):
            first = change(image)
        with seeded(2, position):
            assert torch.equal(change(image), first)
    assert torch.equal(image, before)


def test_probabilities_are_those_of_the_changes(image):
    change = build_photometric(**{**NOTHING, "gray_probability": 0.25})
    torch.manual_seed(0)
    changed = sum(not torch.equal(change(image), image) for _ in range(400))
    assert 70 < changed < 130  # 100 is expected, with a standard deviation of 8.7


def test_changes_without_probability_draw_nothing(image):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert torch.equal(build_photometric(**NOTHING)(image), image)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (check_color_jitter, [0.4, 0, 1.5, 0.5], [0.4, 0.4, 0.4, 0.6]),
        (check_color_jitter, (0, 0, 0, 0), (0.4, 0.4, 0.4)),
        (check_color_jitter, (0, 0, 0, 0), (-0.1, 0.4, 0.4, 0.1)),
        (check_color_jitter, (0, 0, 0, 0), "0.4"),
        (check_range, [0.1, 0.1], [0.0, 1.0]),
        (check_range, [0.1, 2.0], [2.0, 0.1]),
        (check_range, [0.1, 2.0], [0.1, math.inf]),
        (check_range, [0.1, 2.0], 1.0),
        (check_probability, 0, -0.1),
        (check_probability, 1.0, 1.1),
        (check_probability, 0.5, "0.5"),
        (check_probability, 0.5, math.nan),
    ],
)
def test_values_that_cannot_be_are_one_line(check, good, bad):
    check("INPUT.X", good)
    with pytest.raises(UserError, match=r"^INPUT\.X is .*; expected .*$"):
        check("INPUT.X", bad)
