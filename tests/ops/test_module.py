"""The module: its initialisation, output, padding and tracing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention as HuggingFaceMSDeformAttn,
)

from ddep.ops import MSDeformAttn
from tests.huggingface_map import randomise

pytestmark = pytest.mark.usefixtures("implementation")

SHAPES = [(3, 5), (6, 9)]
STARTS = [0, 15]
POSITIONS = 69


def random_inputs(
    device: str = "cpu", queries: int = 7, channels: int = 16
) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, queries, channels, generator=generator)
    reference_points = torch.rand(2, queries, len(SHAPES), 2, generator=generator)
    memory = torch.randn(2, POSITIONS, channels, generator=generator)
    return query.to(device), reference_points.to(device), memory.to(device)


def random_module(device: str) -> MSDeformAttn:
    module = MSDeformAttn(d_model=16, n_levels=2, n_heads=4, n_points=3)
    randomise(module)
    return module.to(device)


def apply(module, query, reference_points, memory, padding_mask=None):
    arguments = [query, reference_points, memory, torch.tensor(SHAPES), torch.tensor(STARTS)]
    return module(*arguments, *([] if padding_mask is None else [padding_mask]))


def test_initial_offsets_are_a_growing_compass():
    module = MSDeformAttn(d_model=32, n_levels=2, n_heads=8, n_points=3)
    offsets = module.sampling_offsets.bias.view(8, 2, 3, 2)
    compass = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for head, (x, y) in enumerate(compass):
        for point in range(3):
            expected = torch.tensor([(x, y), (x, y)]) * (point + 1.0)
            torch.testing.assert_close(offsets[head, :, point], expected, rtol=0, atol=1e-5)
    assert not module.sampling_offsets.weight.any()


def test_initial_attention_is_uniform():
    module = MSDeformAttn(d_model=16, n_levels=2, n_heads=4, n_points=3)
    assert not module.attention_weights.weight.any()
    assert not module.attention_weights.bias.any()
    for projection in (module.value_proj, module.output_proj):
        assert not projection.bias.any()
        bound = (6 / 32) ** 0.5
        assert 0.8 * bound < projection.weight.abs().max() <= bound


def test_matches_hugging_face(device):
    """Outputs, and gradients of all inputs and parameters."""
    theirs = HuggingFaceMSDeformAttn(embed_dim=16, num_heads=4, n_levels=2, n_points=3).to(device)
    randomise(theirs)
    ours = MSDeformAttn(d_model=16, n_levels=2, n_heads=4, n_points=3).to(device)
    ours.load_state_dict(theirs.state_dict())
    inputs = [tensor.requires_grad_() for tensor in random_inputs(device)]
    query, reference_points, memory = inputs
    expected, _ = theirs(
        query,
        encoder_hidden_states=memory,
        reference_points=reference_points,
        spatial_shapes_list=SHAPES,
    )
    found = apply(ours, *inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    expected = torch.autograd.grad(expected.square().sum(), [*inputs, *theirs.parameters()])
    names = {name: index for index, (name, _) in enumerate(theirs.named_parameters(), len(inputs))}
    order = [0, 1, 2, *(names[name] for name, _ in ours.named_parameters())]
    found = torch.autograd.grad(found.square().sum(), [*inputs, *ours.parameters()])
    for one, index in zip(found, order, strict=True):
        torch.testing.assert_close(one, expected[index], rtol=1e-4, atol=1e-3)


def test_offsets_are_in_pixels_of_the_level():
    """One pixel to the right of the centre of pixel (row 1, column 2) is column 3."""
    module = MSDeformAttn(d_model=2, n_levels=2, n_heads=1, n_points=1)
    with torch.no_grad():
        module.sampling_offsets.bias.copy_(torch.tensor([1.0, 0.0, 1.0, 0.0]))
        module.attention_weights.bias.copy_(torch.tensor([0.0, -1e4]))
        for projection in (module.value_proj, module.output_proj):
            projection.weight.copy_(torch.eye(2))
    _, _, memory = random_inputs(channels=2)
    reference_points = torch.tensor([2.5 / 5, 1.5 / 3]).expand(2, 1, 2, 2)
    output = apply(module, torch.zeros(2, 1, 2), reference_points, memory)
    torch.testing.assert_close(output[:, 0], memory[:, 1 * 5 + 3], rtol=0, atol=1e-5)


def test_padding_has_no_value(device):
    module = random_module(device)
    query, reference_points, memory = random_inputs(device)
    padding_mask = torch.zeros(2, POSITIONS, dtype=torch.bool, device=device)
    padding_mask[0, 15:40] = True
    padding_mask[1, ::2] = True
    masked = apply(module, query, reference_points, memory, padding_mask)
    elsewhere = torch.where(padding_mask[..., None], torch.randn_like(memory) * 1e3, memory)
    torch.testing.assert_close(
        apply(module, query, reference_points, elsewhere, padding_mask), masked, rtol=0, atol=0
    )
    # the projected value is set to zero, not the input
    with torch.no_grad():
        module.value_proj.bias.zero_()
    zeroed = memory.masked_fill(padding_mask[..., None], 0)
    torch.testing.assert_close(
        apply(module, query, reference_points, memory, padding_mask),
        apply(module, query, reference_points, zeroed),
        rtol=0,
        atol=1e-6,
    )
    assert not torch.allclose(masked, apply(module, query, reference_points, memory))


@pytest.mark.parametrize(("batch", "queries"), [(2, 0), (0, 7)])
def test_nothing_to_attend(device, batch, queries):
    module = random_module(device)
    query, reference_points, memory = random_inputs(device)
    output = apply(
        module, query[:batch, :queries], reference_points[:batch, :queries], memory[:batch]
    )
    assert output.shape == (batch, queries, 16)


def test_never_reads_a_device_tensor_back():
    """A tensor on the meta device has no data to read, so reading it back would raise."""
    module = MSDeformAttn(d_model=16, n_levels=2, n_heads=4, n_points=3).to("meta")
    output = apply(module, *(t.to("meta") for t in random_inputs()))
    assert output.shape == (2, 7, 16)


def test_heads_must_divide_channels():
    with pytest.raises(ValueError, match="30 is not a multiple of n_heads 4"):
        MSDeformAttn(d_model=30, n_levels=1, n_heads=4, n_points=1)


def test_mixed_precision(device):
    """Under autocast, the projections and the values are bfloat16."""
    module = random_module(device)
    inputs = random_inputs(device)
    expected = apply(module, *inputs)
    with torch.autocast(device, torch.bfloat16):
        output = apply(module, *inputs)
    assert output.dtype == torch.bfloat16
    error = (output.float() - expected).norm() / expected.norm()
    assert 1e-4 < error < 5e-2


@pytest.fixture
def tracing(implementation: str) -> None:
    if implementation == "reference":
        pytest.skip("the reference reads the levels' sizes, which breaks a graph")


def gradients(
    function: Callable[..., torch.Tensor], module: MSDeformAttn, *inputs: torch.Tensor
) -> list[torch.Tensor]:
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    output = apply(function, *inputs)
    return [
        output,
        *torch.autograd.grad(output.square().sum(), [*inputs, *module.parameters()]),
    ]


def test_compiles_whole(tracing, device):
    """Forward and backward, with and without a padding mask; no code is generated, to save time."""
    module = random_module(device)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    inputs = random_inputs(device)
    for one, other in zip(
        gradients(compiled, module, *inputs), gradients(module, module, *inputs), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    padding_mask = torch.rand(2, POSITIONS, device=device) < 0.3
    torch.testing.assert_close(
        apply(compiled, *inputs, padding_mask), apply(module, *inputs, padding_mask)
    )


def test_exports(tracing, device):
    """Any batch size and number of queries works, and the operator is one node."""
    module = random_module(device)
    query, reference_points, memory = random_inputs(device)
    batch, queries = torch.export.Dim("batch"), torch.export.Dim("queries")
    program = torch.export.export(
        module,
        (query, reference_points, memory, torch.tensor(SHAPES), torch.tensor(STARTS)),
        dynamic_shapes=(
            {0: batch, 1: queries},
            {0: batch, 1: queries},
            {0: batch},
            None,
            None,
        ),
    )
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(torch.ops.ddep.ms_deform_attn_fused.default) == 1
    query, reference_points, memory = random_inputs(device, queries=11)
    larger = torch.cat([query, query]), torch.cat([reference_points] * 2), torch.cat([memory] * 2)
    torch.testing.assert_close(apply(program.module(), *larger), apply(module, *larger))


def test_sampling_points_are_those_of_the_forward_pass() -> None:
    """Equation 2 of Deformable DETR, a sample at a time; the samples give the module's output."""
    module = random_module("cpu").double()
    query, reference_points, memory = (x.double() for x in random_inputs(queries=2))
    locations, weights = module.sampling_points(query, reference_points, torch.tensor(SHAPES))
    offsets = module.sampling_offsets(query).view(2, 2, 4, 2, 3, 2)
    logits = module.attention_weights(query).view(2, 2, 4, 2 * 3)
    value = module.value_proj(memory).view(2, POSITIONS, 4, 4)
    output = torch.zeros(2, 2, 4, 4, dtype=torch.float64)
    for image, number, head, level, point in np.ndindex(2, 2, 4, 2, 3):
        index = (image, number, head, level, point)
        height, width = SHAPES[level]
        exponentials = logits[image, number, head].exp()
        weight = exponentials[3 * level + point] / exponentials.sum()
        torch.testing.assert_close(weights[index], weight)
        for axis, length in enumerate((width, height)):
            reference = reference_points[image, number, level, axis]
            expected = reference + offsets[index][axis] / length
            torch.testing.assert_close(locations[index][axis], expected)
        # In pixels whose centres are whole numbers.
        x, y = locations[index] * torch.tensor([width, height]) - 0.5
        for row, column in np.ndindex(height, width):
            share = (1 - (x - column).abs()).clamp(min=0) * (1 - (y - row).abs()).clamp(min=0)
            if share > 0:
                pixel = value[image, STARTS[level] + row * width + column, head]
                output[image, number, head] += weight * share * pixel
    expected = module.output_proj(output.flatten(2))
    torch.testing.assert_close(apply(module, query, reference_points, memory), expected)
