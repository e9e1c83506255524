"""Both functions, compared with a dense float64 formula and with Hugging Face's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.mask2former.modeling_mask2former import multi_scale_deformable_attention

from ddep.ops import extension, ms_deform_attn, ms_deform_attn_fused
from tests.ops.formula import (
    DTYPES,
    Inputs,
    apply,
    check,
    level_starts,
    random_gradient,
    random_inputs,
    run,
    tent_formula,
)

pytestmark = pytest.mark.usefixtures("implementation")

THREE_LEVELS = [(3, 5), (7, 4), (1, 9)]
CHANNELS = [1, 3, 8, 17, 32, 64, 71]
FUSED = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])


@FUSED
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shapes", "sizes"),
    [
        (THREE_LEVELS, {}),
        ([(5, 7)], {}),
        (THREE_LEVELS, {"points": 1}),
        (THREE_LEVELS, {"heads": 1}),
        ([(1, 1)], {"points": 1, "heads": 1, "channels": 1, "queries": 40}),
        ([(6, 11), (3, 2)], {"batch": 1, "channels": 8, "queries": 50}),
        ([(2, 3), (0, 4), (3, 0), (1, 2)], {"queries": 20}),
    ],
)
def test_matches_formula(device, fused, dtype, shapes, sizes):
    check(random_inputs(shapes, fused, dtype=dtype, device=device, **sizes))


@FUSED
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", CHANNELS)
def test_channels(device, fused, dtype, channels):
    check(random_inputs(THREE_LEVELS, fused, channels=channels, dtype=dtype, device=device))


def test_large_levels(device, implementation):
    """Places keep digits that float32 loses at a few hundred pixels."""
    if implementation == "reference":
        pytest.skip("grid_sample rounds the places")
    if device == "cpu" and extension._LIBRARY.cpu_kernels == "default":
        pytest.skip("needs fused multiply-add, which these kernels do without")
    check(random_inputs([(250, 300)], queries=60, dtype=torch.float32, device=device))


@FUSED
@given(
    shapes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 13)), min_size=1, max_size=4),
    batch=st.integers(1, 3),
    queries=st.integers(8, 40),
    heads=st.integers(1, 5),
    channels=st.one_of(st.sampled_from(CHANNELS), st.integers(1, 100)),
    points=st.integers(1, 5),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, derandomize=True, database=None, max_examples=60)
def test_any_sizes(device, fused, shapes, **sizes):
    check(random_inputs([*shapes, (4, 3)], fused, device=device, **sizes))


@FUSED
@pytest.mark.parametrize(
    ("value_dtype", "rest_dtype"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.float16),
    ],
)
def test_mixed_dtypes(device, fused, value_dtype, rest_dtype):
    """Values in half precision with exact coordinates, as under autocast, and other mixtures."""
    inputs = random_inputs(THREE_LEVELS, fused, queries=20, device=device)
    check(
        Inputs(
            inputs.value.to(value_dtype),
            inputs.shapes,
            tuple(tensor.to(rest_dtype) for tensor in inputs.sampling),
        )
    )


def transposed(tensor: torch.Tensor) -> torch.Tensor:
    order = list(reversed(range(tensor.dim())))
    return tensor.permute(order).contiguous().permute(order)


def sliced(tensor: torch.Tensor) -> torch.Tensor:
    """Every second element of a larger tensor that is NaN elsewhere."""
    larger = tensor.new_full([2 * size + 1 for size in tensor.shape], torch.nan)
    view = larger[tuple(slice(1, None, 2) for _ in tensor.shape)]
    return view.copy_(tensor)


def expanded(tensor: torch.Tensor) -> torch.Tensor:
    """The first image's tensor for all images."""
    return tensor[:1].expand(tensor.shape)


@FUSED
@pytest.mark.parametrize("layout", [transposed, sliced, expanded])
def test_layout_does_not_matter(device, fused, layout):
    inputs = random_inputs(THREE_LEVELS, fused, queries=20, dtype=torch.float32, device=device)
    inputs = inputs.map(layout)
    assert not any(tensor.is_contiguous() for tensor in inputs.tensors)
    check(inputs)
    gradient = layout(random_gradient(inputs))
    expected = run(apply, inputs.map(torch.Tensor.contiguous), gradient.contiguous())
    for one, other in zip(run(apply, inputs, gradient), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0 if device == "cpu" else 1e-4)


def test_layout_of_levels_does_not_matter(device):
    inputs = random_inputs(THREE_LEVELS, dtype=torch.float32, device=device)
    value, shapes, starts, *rest = inputs.arguments
    strided = torch.stack([starts, starts + 1], dim=1)[:, 0]
    assert not transposed(shapes).is_contiguous() and not strided.is_contiguous()
    output = ms_deform_attn(value, transposed(shapes), strided, *rest)
    torch.testing.assert_close(output, apply(inputs), rtol=0, atol=0)


def test_sizes_may_be_on_the_device_of_the_values(device):
    inputs = random_inputs(THREE_LEVELS, device=device)
    output = ms_deform_attn(*(tensor.to(device) for tensor in inputs.arguments))
    torch.testing.assert_close(output, apply(inputs), rtol=0, atol=0)


def test_levels_may_lie_in_any_order(device):
    """The start of a level counts, not the order of the levels."""
    inputs = random_inputs([(3, 5), (7, 4)], device=device)
    value, shapes, _, locations, weights = inputs.arguments
    output = ms_deform_attn(
        torch.cat([value[:, 15:], value[:, :15]], dim=1),
        shapes,
        torch.tensor([28, 0]),
        locations,
        weights,
    )
    torch.testing.assert_close(output, apply(inputs), rtol=0, atol=0)


def test_by_hand(device):
    """Pixel centres, borders, corners, half a pixel outside and far away."""
    value = torch.arange(1.0, 9.0, dtype=torch.float64, device=device).view(1, 8, 1, 1)
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
    locations = torch.tensor(list(cases), dtype=torch.float64, device=device)
    locations = locations.view(1, -1, 1, 1, 1, 2)
    output = apply(Inputs(value, [(2, 4)], (locations, torch.ones_like(locations[..., 0]))))
    expected = torch.tensor(list(cases.values()), dtype=torch.float64, device=device)
    torch.testing.assert_close(output.flatten(), expected, rtol=0, atol=1e-12)


@FUSED
def test_gradcheck(device, fused):
    """Random offsets and locations, none of them at a kink."""
    inputs = random_inputs(
        [(3, 5), (2, 3)], fused, batch=1, queries=4, heads=2, channels=3, device=device
    )
    sampling = [tensor[:, 1::2] for tensor in inputs.sampling]
    tensors = [tensor.clone().requires_grad_() for tensor in (inputs.value, *sampling)]
    assert torch.autograd.gradcheck(
        lambda value, *sampling: apply(Inputs(value, inputs.shapes, sampling)),
        tensors,
        nondet_tol=0 if device == "cpu" else 1e-12,
    )


def test_reference_points_move_all_their_points(device):
    """In pixels, their gradient is the sum of the offsets' gradients, even at kinks."""
    inputs = random_inputs(THREE_LEVELS, fused=True, queries=30, device=device)
    _, _, reference, offsets, _ = run(apply, inputs, random_gradient(inputs))
    sizes = torch.tensor(THREE_LEVELS).flip(-1).to(offsets)
    torch.testing.assert_close(reference, offsets.sum((2, 4)) * sizes, rtol=1e-12, atol=1e-12)


def test_matches_hugging_face(device):
    inputs = random_inputs(THREE_LEVELS, dtype=torch.float32, device=device)
    expected = multi_scale_deformable_attention(inputs.value, THREE_LEVELS, *inputs.sampling)
    torch.testing.assert_close(apply(inputs), expected, rtol=0, atol=1e-6)


@FUSED
@pytest.mark.parametrize(
    "sizes",
    [{"queries": 0}, {"batch": 0}, {"batch": 0, "queries": 0}, {"channels": 0}, {"heads": 0}],
)
def test_nothing_to_sample(device, fused, sizes):
    inputs = random_inputs(THREE_LEVELS, fused, device=device, **sizes)
    output, *gradients = run(apply, inputs, random_gradient(inputs))
    channels = sizes.get("heads", 3) * sizes.get("channels", 4)
    assert output.shape == (sizes.get("batch", 2), sizes.get("queries", 6), channels)
    for gradient, tensor in zip(gradients, inputs.tensors, strict=True):
        assert gradient.shape == tensor.shape
        assert not gradient.any()


@FUSED
def test_no_points(device, fused):
    inputs = random_inputs(THREE_LEVELS, fused, points=0, device=device)
    for result in run(apply, inputs, random_gradient(inputs)):
        assert not result.any()


def test_wrong_sizes_are_refused(device):
    inputs = random_inputs(THREE_LEVELS, device=device)
    wrong = Inputs(inputs.value, [(3, 5), (7, 4), (2, 9)], inputs.sampling)
    with pytest.raises(ValueError, match="S = 52"):
        apply(wrong)


@FUSED
def test_sizes_on_the_host_avoid_a_wait(device, fused):
    if device != "cuda":
        pytest.skip("needs a GPU")
    inputs = random_inputs(THREE_LEVELS, fused, device=device)
    expected = run(apply, inputs, random_gradient(inputs))
    gradient = random_gradient(inputs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = run(apply, inputs, gradient)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_decomposed_from_lists_of_sizes() -> None:
    """As in graphs: PyTorch's own operators, and sizes that are no tensors."""
    inputs = random_inputs([(3, 5), (1, 7)], fused=True)
    starts = level_starts(inputs.shapes).tolist()
    with extension.decomposed():
        output = ms_deform_attn_fused(inputs.value, inputs.shapes, starts, *inputs.sampling)
        assert torch.equal(output, apply(inputs))
    expected = tent_formula(inputs)
    assert (output - expected).norm() <= 1e-12 * expected.norm()
