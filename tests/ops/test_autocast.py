"""Either implementation under autocast."""

from __future__ import annotations

import pytest
import torch

from tests.ops.formula import (
    Inputs,
    apply,
    random_gradient,
    random_inputs,
    relative_error,
    run,
    tent_formula,
)

FUSED = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
SHAPES = [(3, 5), (2, 4)]


@FUSED
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(device, implementation, fused, dtype):
    """Values are cast to the lower precision, coordinates and weights stay as they are."""
    inputs = random_inputs(SHAPES, fused, queries=20, dtype=torch.float32, device=device)
    gradient = random_gradient(inputs)
    with torch.autocast(device, dtype):
        output = apply(inputs)
    assert output.dtype == dtype
    rounded = Inputs(inputs.value.to(dtype), SHAPES, inputs.sampling)
    torch.testing.assert_close(output, apply(rounded), rtol=0, atol=0)
    assert relative_error(output, tent_formula(rounded.map(torch.Tensor.double))) < 4e-3

    def under_autocast(traced: Inputs) -> torch.Tensor:
        with torch.autocast(device, dtype):
            return apply(traced)

    found = run(under_autocast, inputs, gradient.to(dtype))
    expected = run(apply, rounded, gradient.to(dtype))
    # A GPU adds up the gradient of value in any order, and then rounds it to the lower precision.
    exact = device == "cpu"
    tolerance = {"rtol": 0 if exact else torch.finfo(dtype).eps, "atol": 0 if exact else 1e-4}
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other.float(), **tolerance)


@FUSED
def test_autocast_leaves_float64_alone(device, implementation, fused):
    inputs = random_inputs(SHAPES, fused, device=device)
    with torch.autocast(device, torch.bfloat16):
        output = apply(inputs)
    torch.testing.assert_close(output, apply(inputs), rtol=0, atol=0)
