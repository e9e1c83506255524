"""NaN, infinities, and the kinks of bilinear interpolation, in the compiled operators."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.ops.formula import (
    BACKWARD,
    FORWARD,
    Inputs,
    apply,
    check,
    random_gradient,
    random_inputs,
    relative_error,
    run,
    tent_formula,
)

pytestmark = pytest.mark.usefixtures("compiled")

SHAPES = [(3, 5), (7, 4)]
FUSED = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
CHANNELS = pytest.mark.parametrize("channels", [3, 32, 37])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def inputs_of(device: str, fused: bool = False, channels: int = 5, **sizes) -> Inputs:
    return random_inputs(SHAPES, fused, queries=9, channels=channels, device=device, **sizes)


@FUSED
@DTYPES
@pytest.mark.parametrize("strange", [torch.nan, torch.inf, -torch.inf, 1e30, -1e30])
@pytest.mark.parametrize("axes", [[0], [1], [0, 1]])
def test_strange_coordinates_touch_nothing(device, fused, dtype, strange, axes):
    """They sample zero, like a place far outside. Their weight still counts."""
    inputs = inputs_of(device, fused, dtype=dtype)
    which = torch.rand(inputs.sampling[-1].shape) < 0.4

    def with_places(place: float) -> Inputs:
        places = inputs.sampling[-2].clone()
        for axis in axes:
            places[..., axis] = places[..., axis].masked_fill(which.to(device), place)
        return replace(inputs, sampling=(*inputs.sampling[:-2], places, inputs.sampling[-1]))

    gradient = random_gradient(inputs)
    expected = run(apply, with_places(-1000.0), gradient)
    for one, other in zip(run(apply, with_places(strange), gradient), expected, strict=True):
        assert one.isfinite().all()
        torch.testing.assert_close(one, other, rtol=0, atol=0 if device == "cpu" else 1e-5)


def test_strange_reference_points_touch_nothing(device):
    inputs = inputs_of(device, fused=True)
    reference = inputs.sampling[0].clone()
    reference[:, ::2, 1, 0] = torch.nan
    strange = replace(inputs, sampling=(reference, *inputs.sampling[1:]))
    far = replace(inputs, sampling=(reference.nan_to_num(-1000.0), *inputs.sampling[1:]))
    gradient = random_gradient(inputs)
    for one, other in zip(run(apply, strange, gradient), run(apply, far, gradient), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0 if device == "cpu" else 1e-12)


@CHANNELS
@DTYPES
@pytest.mark.parametrize("strange", [torch.nan, torch.inf])
def test_strange_pixels_do_not_leak(device, channels, dtype, strange):
    """One value affects only its channel, and only points less than one pixel away."""
    inputs = inputs_of(device, channels=channels, dtype=dtype, points=1, heads=2)
    inputs = replace(inputs, sampling=(inputs.sampling[0], inputs.sampling[1] + 0.1))
    distance_all = inputs.pixels()
    clean = run(apply, inputs, random_gradient(inputs))
    for level, y, x in [
        (0, 0, 0),
        (0, 2, 4),
        (0, 1, 4),
        (1, 0, 0),
        (1, 6, 3),
        (1, 3, 0),
        (1, 2, 2),
    ]:
        head, channel = 1, channels - 1
        value = inputs.value.clone()
        value[:, 15 * level + y * SHAPES[level][1] + x, head, channel] = strange
        found = run(apply, replace(inputs, value=value), random_gradient(inputs))
        pixel = torch.tensor([x, y]).to(distance_all)
        distances = (distance_all[:, :, head, level] - pixel).abs().amax(-1)  # (N, Q, P)
        # A pixel at distance 1 has weight 0, and may or may not be multiplied by it.
        touched, may_touch = (distances < 0.999).any(-1), (distances < 1.001).any(-1)
        output, expected = (t.unflatten(2, (2, channels)) for t in (found[0], clean[0]))
        assert not output[:, :, head, channel][touched].isfinite().any()
        same = torch.ones_like(output, dtype=torch.bool)
        same[:, :, head, channel] = ~may_touch
        assert torch.equal(output[same], expected[same])
        # the gradient of a value does not depend on values
        torch.testing.assert_close(found[1], clean[1], rtol=1e-5, atol=1e-5)
        for one, other in zip(found[2:], clean[2:], strict=True):
            same = torch.ones_like(one, dtype=torch.bool)
            same[:, :, head, level] = ~may_touch.view(-1, 9, *[1] * (one.dim() - 4))
            assert torch.equal(one[same], other[same])


@CHANNELS
def test_no_pixel_beyond_the_ends_of_a_row(device, channels):
    """The pixel left of the first column is not the last one of the row above, and vice versa."""
    inputs = inputs_of(device, channels=channels, points=3)
    height, width = SHAPES[0]
    sides = torch.tensor([-0.25 / width, 1 + 0.25 / width], device=device)
    locations = torch.rand_like(inputs.sampling[0])
    locations[..., 0] = sides[torch.arange(9) % 2].view(1, 9, 1, 1, 1)
    inputs = replace(inputs, sampling=(locations, inputs.sampling[1]))
    check(inputs)
    value = inputs.value.clone()
    value[:, :15].view(2, height, width, -1)[:, :, 1:-1] = torch.nan
    value[:, 15:] = 0
    left, right = apply(replace(inputs, value=value)).split([1, 8], dim=1)
    assert left.isfinite().all() and right.isfinite().all()


@DTYPES
def test_nan_logits_make_nan_of_their_head(device, dtype):
    inputs = inputs_of(device, fused=True, dtype=dtype)
    for point in [(0, 0), (1, 1), (0, 1)]:  # first, last, between
        logits = inputs.sampling[2].clone()
        logits[1, 4, 2][point] = torch.nan
        found = apply(replace(inputs, sampling=(*inputs.sampling[:2], logits)))
        expected = apply(inputs).unflatten(2, (3, 5)).clone()
        expected[1, 4, 2] = torch.nan
        torch.testing.assert_close(
            found.unflatten(2, (3, 5)), expected, rtol=0, atol=0, equal_nan=True
        )


@DTYPES
def test_masked_logits_have_no_weight(device, dtype):
    """Minus infinity masks points; their gradients are 0."""
    inputs = inputs_of(device, fused=True, dtype=dtype, points=3)
    reference, offsets, logits = inputs.sampling
    masked = torch.rand(logits.shape, generator=torch.Generator().manual_seed(3)) < 0.4
    masked[:, :, :, 0, 0] = False  # one stays
    masked = masked.to(device)
    strange = replace(inputs, sampling=(reference, offsets, logits.masked_fill(masked, -torch.inf)))
    gradient = random_gradient(inputs)
    found = run(apply, strange, gradient)
    exact = strange.map(torch.Tensor.double)
    assert relative_error(found[0], tent_formula(exact)) < FORWARD[dtype]
    expected = run(tent_formula, exact, gradient.double())
    assert relative_error(found[1], expected[1]) < BACKWARD[dtype]
    assert relative_error(found[4], expected[4]) < BACKWARD[dtype]
    assert not found[3][masked].any() and not found[4][masked].any()


def test_all_masked_is_nan(device):
    """Like a softmax in PyTorch whose logits are all masked."""
    inputs = inputs_of(device, fused=True)
    logits = inputs.sampling[2].clone()
    logits[0, 3, 1] = -torch.inf
    output = apply(replace(inputs, sampling=(*inputs.sampling[:2], logits)))
    output = output.unflatten(2, (3, 5))
    assert output[0, 3, 1].isnan().all()
    assert output.isnan().sum() == 5


@DTYPES
@pytest.mark.parametrize("scale", [1e-6, 30.0, 300.0, 1e4])
def test_logits_of_any_size(device, dtype, scale):
    """If one point has all the weight, e^x of the others underflows, and nothing overflows."""
    inputs = inputs_of(device, fused=True, dtype=dtype, points=4)
    reference, offsets, logits = inputs.sampling
    inputs = replace(inputs, sampling=(reference, offsets, logits * scale + scale))
    gradient = random_gradient(inputs)
    found = run(apply, inputs, gradient)
    expected = run(tent_formula, inputs.map(torch.Tensor.double), gradient.double())
    assert relative_error(found[0], expected[0]) < FORWARD[dtype]
    assert relative_error(found[1], expected[1]) < BACKWARD[dtype]
    # With a saturated softmax, this is a difference of nearly equal numbers.
    error = (found[4].double() - expected[4]).abs().max()
    assert error < BACKWARD[dtype] * expected[0].abs().max()


@DTYPES
def test_nan_weight_stays_in_its_head(device, dtype):
    inputs = inputs_of(device, dtype=dtype)
    weights = inputs.sampling[1].clone()
    weights[0, 2, 1, 1, 0] = torch.nan
    output = apply(replace(inputs, sampling=(inputs.sampling[0], weights)))
    output, expected = (t.unflatten(2, (3, 5)) for t in (output, apply(inputs)))
    assert output[0, 2, 1].isnan().all()
    expected = expected.clone()
    expected[0, 2, 1] = torch.nan
    torch.testing.assert_close(output, expected, rtol=0, atol=0, equal_nan=True)


@DTYPES
@pytest.mark.parametrize("axis", [0, 1])
def test_slopes_at_pixel_centres(device, dtype, axis):
    """At a centre, the gradient of a location is the slope towards the next pixel (right, below).

    A whole pixel outside the level, where the slope on one side is 0, either slope is accepted.
    """
    size, other = 8, 4
    height, width = (other, size) if axis == 0 else (size, other)
    value = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    along = value.view(1, size) if axis == 0 else value.view(size, 1)
    pixels = along.expand(height, width).reshape(1, -1, 1, 1).to(device, dtype)
    centres = torch.arange(-1, size + 1)
    locations = torch.full((1, size + 2, 1, 1, 1, 2), 0.5)  # between two centres of the other axis
    locations[0, :, 0, 0, 0, axis] = (centres + 0.5) / size  # exact, as size is a power of 2
    weights = torch.full((1, size + 2, 1, 1, 1), 2.0)
    inputs = Inputs(pixels, [(height, width)], (locations.to(pixels), weights.to(pixels)))
    ones = torch.ones(1, size + 2, 1, device=device, dtype=dtype)
    output, _, found, _ = run(apply, inputs, ones)
    torch.testing.assert_close(output.flatten()[1:-1].cpu(), 2 * value.to(dtype), rtol=0, atol=0)
    found = found[0, :, 0, 0, 0, axis].cpu()
    padded = torch.nn.functional.pad(value.to(dtype), (1, 1))  # of -1 to size
    slopes = 2 * size * padded.diff()  # from -1 to 0, ..., from size - 1 to size
    torch.testing.assert_close(found[1:-1], slopes[1:], rtol=1e-6, atol=1e-6)
    for at_end, slope in [(found[0], slopes[0]), (found[-1], slopes[-1])]:
        assert at_end == 0 or at_end == pytest.approx(slope.item(), rel=1e-6)
