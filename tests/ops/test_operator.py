"""The compiled functions as PyTorch operators: tracing, export, autocast, tensors without data."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ddep.ops import ms_deform_attn, ms_deform_attn_fused
from tests.ops.formula import (
    DTYPES,
    Inputs,
    apply,
    random_gradient,
    random_inputs,
    run,
)

pytestmark = pytest.mark.usefixtures("compiled")

FUSED = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
SHAPES = [(3, 5), (2, 4)]


def operators(fused: bool) -> tuple[torch._ops.OpOverload, torch._ops.OpOverload]:
    """Forward and backward."""
    name = "ms_deform_attn_fused" if fused else "ms_deform_attn"
    forward, backward = (getattr(torch.ops.ddep, of) for of in (name, f"{name}_backward"))
    return forward.default, backward.default


@FUSED
@pytest.mark.parametrize(
    ("dtype", "sizes"),
    [
        (torch.float64, {}),
        (torch.float32, {"channels": 32, "points": 4}),
        (torch.bfloat16, {"batch": 1}),
        (torch.float16, {"channels": 1, "points": 1}),
        (torch.float32, {"queries": 0}),
    ],
)
def test_opcheck(device, fused, dtype, sizes):
    inputs = random_inputs(SHAPES, fused, dtype=dtype, device=device, **sizes)
    gradient = random_gradient(inputs)
    forward, backward = operators(fused)
    torch.library.opcheck(backward, (gradient, *inputs.arguments))
    torch.library.opcheck(forward, inputs.map(torch.Tensor.requires_grad_).arguments)


def test_opcheck_of_mixed_dtypes(device):
    inputs = random_inputs(SHAPES, True, dtype=torch.float32, device=device)
    inputs = Inputs(inputs.value.bfloat16(), SHAPES, inputs.sampling)
    forward, backward = operators(True)
    torch.library.opcheck(backward, (random_gradient(inputs), *inputs.arguments))
    torch.library.opcheck(forward, inputs.map(torch.Tensor.requires_grad_).arguments)


def test_tags():
    for operator in (*operators(False), *operators(True)):
        assert torch.Tag.pt2_compliant_tag in operator.tags


@FUSED
def test_no_second_derivative(device, fused):
    """An error, not a wrong result."""
    inputs = random_inputs(SHAPES, fused, device=device).map(torch.Tensor.requires_grad_)
    (gradient,) = torch.autograd.grad(apply(inputs).sum(), inputs.value, create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        gradient.sum().backward()


@FUSED
def test_compiles_whole(device, fused):
    """In one graph, for any sizes."""
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph

    function = ms_deform_attn_fused if fused else ms_deform_attn
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend=backend)
    for queries, batch, shapes in [(6, 5, SHAPES), (9, 7, [(4, 4), (5, 3)]), (20, 8, SHAPES)]:
        inputs = random_inputs(shapes, fused, queries=queries, batch=batch, device=device)
        gradient = random_gradient(inputs)
        found = run(lambda traced: compiled(*traced.arguments), inputs, gradient)
        for one, other in zip(found, run(apply, inputs, gradient), strict=True):
            torch.testing.assert_close(one, other)
    assert len(graphs) == 1
    assert "ddep" in graphs[0].code


@FUSED
def test_compiles_through_autograd(device, fused):
    """The backward pass is also traced ahead of time."""
    compiled = torch.compile(apply_arguments(fused), fullgraph=True, backend="aot_eager")
    inputs = random_inputs(SHAPES, fused, dtype=torch.float32, device=device)
    gradient = random_gradient(inputs)
    found = run(lambda traced: compiled(*traced.arguments), inputs, gradient)
    for one, other in zip(found, run(apply, inputs, gradient), strict=True):
        torch.testing.assert_close(one, other)


def apply_arguments(fused: bool):
    """Something around the function, so that its arguments are not the graph's."""
    function = ms_deform_attn_fused if fused else ms_deform_attn

    def wrapped(value, shapes, starts, *sampling):
        return function(2 * value, shapes, starts, *sampling) / 2

    return wrapped


@FUSED
@pytest.mark.parametrize("dtype", DTYPES)
def test_meta_tensors(fused, dtype):
    """Shapes and dtypes only, with sizes of the levels on the host or on the meta device."""
    inputs = random_inputs(SHAPES, fused, dtype=dtype).map(lambda tensor: tensor.to("meta"))
    forward, backward = operators(fused)
    for arguments in (inputs.arguments, [tensor.to("meta") for tensor in inputs.arguments]):
        output = forward(*arguments)
        assert (output.shape, output.dtype) == ((2, 6, 12), dtype)
        assert output.device.type == "meta"
        for one, other in zip(backward(output, *arguments), inputs.tensors, strict=True):
            assert (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)


@FUSED
def test_traces_for_a_gpu_with_sizes_on_the_host(fused):
    """Like a model for CUDA traced on a machine without it."""
    with FakeTensorMode():
        value = torch.empty(2, 23, 3, 4, device="cuda", dtype=torch.bfloat16)
        shapes, starts = torch.empty(2, 2, dtype=torch.int64), torch.empty(2, dtype=torch.int64)
        sampling = [
            torch.empty(2, 6, 3, 2, 2, 2, device="cuda"),
            torch.empty(2, 6, 3, 2, 2, device="cuda"),
        ]
        if fused:
            sampling.insert(0, torch.empty(2, 6, 2, 2, device="cuda"))
        forward, backward = operators(fused)
        output = forward(value, shapes, starts, *sampling)
        assert (output.shape, output.dtype) == ((2, 6, 12), torch.bfloat16)
        assert output.device.type == "cuda"
        gradients = backward(output, value, shapes, starts, *sampling)
        for one, other in zip(gradients, [value, *sampling], strict=True):
            assert (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
