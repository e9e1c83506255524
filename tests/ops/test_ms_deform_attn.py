"""The function against a dense float64 formula and against Hugging Face's."""

from __future__ import annotations

import pytest
import torch
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

from ddep.ops import ms_deform_attn

THREE_LEVELS = [(3, 5), (7, 4), (1, 9)]


def level_starts(shapes: list[tuple[int, int]]) -> torch.Tensor:
    sizes = torch.tensor([h * w for h, w in shapes])
    return sizes.cumsum(0) - sizes


def apply(value, shapes, locations, weights):
    return ms_deform_attn(value, torch.tensor(shapes), level_starts(shapes), locations, weights)


def tent_formula(value, shapes, locations, weights):
    """Sum every pixel times the tent max(0, 1 - |distance|) in x and in y.

    Pixel j has its centre at j, that is at the fraction (j + 1/2) / W of the level.
    """
    output = 0
    for level, ((h, w), start) in enumerate(
        zip(shapes, level_starts(shapes).tolist(), strict=True)
    ):
        x = locations[..., level, :, 0] * w - 0.5
        y = locations[..., level, :, 1] * h - 0.5
        columns = (1 - (x[..., None] - torch.arange(w)).abs()).clamp(min=0)
        rows = (1 - (y[..., None] - torch.arange(h)).abs()).clamp(min=0)
        pixels = value[:, start : start + h * w].unflatten(1, (h, w))
        output = output + torch.einsum(
            "nqmpx,nqmpy,nyxmd,nqmp->nqmd", columns, rows, pixels, weights[..., level, :]
        )
    return output.flatten(2)


def random_inputs(shapes, batch=2, queries=6, heads=3, channels=4, points=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    positions = sum(h * w for h, w in shapes)
    value = torch.randn(batch, positions, heads, channels, generator=generator, dtype=dtype)
    size = (batch, queries, heads, len(shapes), points)
    # a good part of them outside, on all sides
    locations = torch.rand(*size, 2, generator=generator, dtype=dtype) * 1.6 - 0.3
    weights = torch.rand(size, generator=generator, dtype=dtype)
    return value, locations, weights


@pytest.mark.parametrize(
    ("shapes", "sizes"),
    [
        (THREE_LEVELS, {}),
        ([(5, 7)], {}),
        (THREE_LEVELS, {"points": 1}),
        (THREE_LEVELS, {"heads": 1}),
        (THREE_LEVELS, {"channels": 1}),
        ([(1, 1)], {"points": 1, "heads": 1, "channels": 1, "queries": 40}),
        ([(6, 11), (3, 2)], {"batch": 1, "channels": 8, "queries": 50}),
    ],
)
def test_matches_formula(shapes, sizes):
    value, locations, weights = random_inputs(shapes, **sizes)
    expected = tent_formula(value, shapes, locations, weights)
    torch.testing.assert_close(
        apply(value, shapes, locations, weights), expected, rtol=0, atol=1e-12
    )
    single = apply(value.float(), shapes, locations.float(), weights.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=2e-5)


def test_special_locations():
    """Pixel centres, borders, corners, half a pixel outside and far away, by hand."""
    shapes = [(2, 4)]
    value = torch.arange(1.0, 9.0, dtype=torch.float64).view(1, 8, 1, 1)
    cases = {
        (0.125, 0.25): 1.0,  # centre of the first pixel
        (0.375, 0.25): 2.0,  # x runs along the width
        (0.125, 0.75): 5.0,  # y runs down the height
        (0.25, 0.25): 1.5,  # between two centres
        (0.25, 0.5): 3.5,  # between four
        (0.0, 0.25): 0.5,  # left border: half of it is outside
        (1.0, 0.75): 4.0,  # right border
        (0.0, 0.0): 0.25,  # corner: three quarters are outside
        (1.0, 1.0): 2.0,
        (-0.125, 0.25): 0.0,  # a whole pixel from the nearest centre
        (1.125, 0.75): 0.0,
        (0.5, -7.0): 0.0,
        (1e9, 0.5): 0.0,
    }
    locations = torch.tensor(list(cases), dtype=torch.float64).view(1, -1, 1, 1, 1, 2)
    output = apply(value, shapes, locations, torch.ones_like(locations[..., 0]))
    expected = torch.tensor(list(cases.values()), dtype=torch.float64)
    torch.testing.assert_close(output.flatten(), expected, rtol=0, atol=1e-12)


def test_gradients():
    shapes = [(3, 5), (2, 3)]
    inputs = random_inputs(shapes, batch=1, queries=3, heads=2, channels=2)
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda v, xy, a: apply(v, shapes, xy, a), inputs)
    expected = torch.autograd.grad(
        tent_formula(inputs[0], shapes, *inputs[1:]).square().sum(), inputs
    )
    found = torch.autograd.grad(apply(inputs[0], shapes, *inputs[1:]).square().sum(), inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_matches_hugging_face():
    value, locations, weights = random_inputs(THREE_LEVELS, dtype=torch.float32)
    expected = multi_scale_deformable_attention(value, THREE_LEVELS, locations, weights)
    torch.testing.assert_close(
        apply(value, THREE_LEVELS, locations, weights), expected, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("sizes", [{"queries": 0}, {"batch": 0}, {"batch": 0, "queries": 0}])
def test_nothing_to_sample(sizes):
    inputs = random_inputs(THREE_LEVELS, **sizes)
    for tensor in inputs:
        tensor.requires_grad_()
    output = apply(inputs[0], THREE_LEVELS, *inputs[1:])
    assert output.shape == (sizes.get("batch", 2), sizes.get("queries", 6), 12)
    output.sum().backward()
    assert not inputs[0].grad.any()


def test_wrong_shapes_are_refused():
    value, locations, weights = random_inputs(THREE_LEVELS)
    with pytest.raises(ValueError, match="S = 52"):
        apply(value, [(3, 5), (7, 4), (2, 9)], locations, weights)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_sizes_on_the_host_spare_a_wait():
    value, locations, weights = (t.cuda() for t in random_inputs(THREE_LEVELS))
    torch.cuda.set_sync_debug_mode("error")
    try:
        output = apply(value, THREE_LEVELS, locations, weights)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = ms_deform_attn(
        value,
        torch.tensor(THREE_LEVELS).cuda(),
        level_starts(THREE_LEVELS).cuda(),
        locations,
        weights,
    )
    torch.testing.assert_close(output, expected)
