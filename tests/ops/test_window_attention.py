"""Attention inside windows, compared with a formula that attends over all tokens of a map."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from ddep.modeling.backbone.windows import WindowLayout, shift_mask, window_layout
from ddep.ops import extension, window_attention

CPU = torch.device("cpu")
# Maps (batch, height, width), window and shift: padded or not, several windows or one.
MAPS = [(2, 6, 7, 4, 2), (1, 8, 4, 4, 0), (2, 3, 2, 4, 0), (1, 9, 9, 3, 1), (1, 5, 4, 7, 3)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 8e-3}


class Inputs(NamedTuple):
    """The arguments of ``window_attention`` but the dropout."""

    qkv: Tensor
    padding: Tensor | None
    bias: Tensor
    mask: Tensor | None
    slots: Tensor
    counts: tuple[int, ...]
    scale: float

    @property
    def leaves(self) -> list[Tensor]:
        return [tensor for tensor in self[:3] if tensor is not None]

    def with_leaves(self, *leaves: Tensor) -> Inputs:
        qkv, *padding, bias = leaves
        return self._replace(qkv=qkv, padding=padding[0] if padding else None, bias=bias)

    def to(self, dtype: torch.dtype) -> Inputs:
        mask = None if self.mask is None else self.mask.to(dtype)
        return self.with_leaves(*(leaf.to(dtype) for leaf in self.leaves))._replace(mask=mask)


def random_inputs(
    batch: int, height: int, width: int, window: int, shift: int, heads: int = 2, channels: int = 5
) -> Inputs:
    generator = torch.Generator().manual_seed(height)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    layout = window_layout(batch, height, width, window, shift, CPU)
    return Inputs(
        qkv=random(batch * height * width, 3 * heads * channels),
        padding=random(3 * heads * channels),
        bias=random(heads, window**2, window**2),
        mask=shift_mask(window, shift).double() if shift else None,
        slots=layout.slots,
        counts=layout.counts,
        scale=0.4,
    )


def formula(inputs: Inputs) -> Tensor:
    """Token after token: softmax over the positions of its window, padding among them."""
    heads, positions = inputs.bias.shape[:2]
    padding = inputs.qkv[0] * 0 if inputs.padding is None else inputs.padding
    places = {slot: token for token, slot in enumerate(inputs.slots.tolist())}
    kinds = [kind for kind, count in enumerate(inputs.counts) for _ in range(count)]
    outputs = []
    for token, slot in enumerate(inputs.slots.tolist()):
        window, position = divmod(slot, positions)
        others = [places.get(window * positions + other) for other in range(positions)]
        rows = torch.stack([padding if row is None else inputs.qkv[row] for row in others])
        _, key, value = rows.view(positions, 3, heads, -1).unbind(1)
        query = inputs.qkv[token].view(3, heads, -1)[0]
        logits = inputs.scale * torch.einsum("hd,nhd->hn", query, key) + inputs.bias[:, position]
        if inputs.mask is not None:
            logits = logits + inputs.mask[kinds[window], position]
        outputs.append(torch.einsum("hn,nhd->hd", logits.softmax(-1), value).flatten())
    return torch.stack(outputs)


def run(function: Callable[[Inputs], Tensor], inputs: Inputs) -> list[Tensor]:
    """The output, and the gradients of its product with a fixed tensor."""
    leaves = [leaf.detach().requires_grad_() for leaf in inputs.leaves]
    output = function(inputs.with_leaves(*leaves))
    generator = torch.Generator().manual_seed(1)
    gradient = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    gradient = gradient.to(output.dtype)
    # Without padding, the formula does not use it.
    return [output, *torch.autograd.grad(output, leaves, gradient, materialize_grads=True)]


def apply(inputs: Inputs) -> Tensor:
    return window_attention(*inputs)


@pytest.mark.parametrize("sizes", MAPS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_equals_the_formula(
    implementation: str, sizes: tuple[int, ...], dtype: torch.dtype
) -> None:
    inputs = random_inputs(*sizes).to(dtype)
    expected = run(formula, inputs.to(torch.float64))
    for one, other in zip(run(apply, inputs), expected, strict=True):
        assert one.dtype == dtype
        assert (one.double() - other).norm() <= TOLERANCE[dtype] * other.norm()


@pytest.mark.parametrize("heads, channels", [(3, 32), (1, 8), (2, 33)])
def test_any_number_of_channels(implementation: str, heads: int, channels: int) -> None:
    inputs = random_inputs(2, 9, 10, 7, 3, heads, channels)
    for one, other in zip(run(apply, inputs), run(formula, inputs), strict=True):
        assert (one - other).norm() <= 1e-12 * other.norm()


def test_padding_is_zero_by_default(implementation: str) -> None:
    inputs = random_inputs(2, 6, 7, 4, 2)._replace(padding=None)
    zeros = inputs._replace(padding=torch.zeros_like(inputs.qkv[0]))
    output, qkv, bias = run(apply, inputs)
    expected, expected_qkv, _, expected_bias = run(formula, zeros)
    torch.testing.assert_close((output, qkv, bias), (expected, expected_qkv, expected_bias))


def test_gradients(implementation: str) -> None:
    inputs = random_inputs(1, 3, 4, 3, 1, channels=2)
    leaves = [leaf.requires_grad_() for leaf in inputs.leaves]
    assert torch.autograd.gradcheck(lambda *leaves: apply(inputs.with_leaves(*leaves)), leaves)


def test_strided_arguments(implementation: str) -> None:
    inputs = random_inputs(2, 6, 7, 4, 2)
    strided = inputs._replace(
        qkv=inputs.qkv.T.contiguous().T,
        bias=inputs.bias.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        slots=inputs.slots.repeat_interleave(2)[::2],
    )
    for one, other in zip(run(apply, strided), run(apply, inputs), strict=True):
        torch.testing.assert_close(one, other)


def test_nothing_but_the_arguments_is_kept(compiled_on_cpu: str) -> None:
    inputs = random_inputs(2, 6, 7, 4, 2)
    inputs = inputs.with_leaves(*(leaf.requires_grad_() for leaf in inputs.leaves))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        apply(inputs)
    assert {tensor.data_ptr() for tensor in kept} == {
        tensor.data_ptr() for tensor in inputs if isinstance(tensor, Tensor)
    }


def test_dropout(implementation: str) -> None:
    """Keeps the mean: a value of 1 everywhere becomes the sum of the weights that are left."""
    inputs = random_inputs(4, 8, 8, 4, 2)
    inputs.qkv.view(-1, 3, 10)[:, 2] = 1
    torch.manual_seed(0)
    output = window_attention(*inputs, dropout=0.3)
    assert output.std() > 0.1
    assert output.mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_reach_the_whole_window(implementation: str, value: float) -> None:
    """And no other window."""
    inputs = random_inputs(1, 8, 8, 4, 0, heads=1, channels=4)
    inputs.qkv[0, 4:8] = value  # a key
    inputs.qkv[:, 0:4] = 1  # queries, so that infinity times them has a sign
    wrong = apply(inputs).view(8, 8, 4).isnan()
    assert wrong[:4, :4].all()
    assert not wrong[4:].any() and not wrong[:, 4:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_do_not_depend_on_threads(compiled_on_cpu: str, dtype: torch.dtype) -> None:
    inputs = random_inputs(3, 20, 25, 4, 2, heads=3, channels=33).to(dtype)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = run(apply, inputs)
        for threads in (2, 3, 2):
            torch.set_num_threads(threads)
            for one, other in zip(run(apply, inputs), expected, strict=True):
                assert torch.equal(one, other)
    finally:
        torch.set_num_threads(before)


def test_autocast(implementation: str) -> None:
    inputs = random_inputs(2, 6, 7, 4, 2).to(torch.float32)

    def under_autocast(inputs: Inputs) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return apply(inputs._replace(qkv=inputs.qkv.bfloat16()))

    expected = run(formula, inputs.to(torch.float64))
    found = run(under_autocast, inputs)
    assert [tensor.dtype for tensor in found] == [torch.bfloat16, *3 * [torch.float32]]
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < 2e-2 * other.norm()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiles_whole(implementation: str, backend: str) -> None:
    """In one graph, for maps of any size."""

    def attend(maps: Tensor, padding: Tensor, bias: Tensor) -> Tensor:
        batch, height, width = maps.shape[:3]
        layout: WindowLayout = window_layout(batch, height, width, 4, 2, CPU)
        mask = shift_mask(4, 2).double()
        tokens = 2 * maps.flatten(0, 2)
        output = window_attention(tokens, padding, bias, mask, layout.slots, layout.counts, 0.4)
        return output.view(batch, height, width, -1)

    compiled = torch.compile(attend, fullgraph=True, dynamic=True, backend=backend)
    for batch, height, width in [(2, 9, 13), (3, 10, 14)]:
        inputs = random_inputs(batch, height, width, 4, 2)
        maps = inputs.qkv.view(batch, height, width, -1)
        results = []
        for function in (attend, compiled):
            leaves = [maps, *inputs.leaves[1:]]
            leaves = [leaf.detach().requires_grad_() for leaf in leaves]
            output = function(*leaves)
            results.append([output, *torch.autograd.grad(output.square().sum(), leaves)])
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other)


def test_operators_pass_pytorchs_checks(compiled_on_cpu: str) -> None:
    """Schema, autograd registration, and shapes without data."""
    inputs = random_inputs(2, 6, 7, 4, 2)
    for chosen in (inputs, inputs._replace(padding=None, mask=None, counts=(8,))):
        chosen = chosen.with_leaves(*(leaf.requires_grad_() for leaf in chosen.leaves))
        tests = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(torch.ops.ddep.window_attention, chosen, test_utils=tests)
        detached = [x.detach() if isinstance(x, Tensor) else x for x in chosen]
        gradient = torch.ones(len(chosen.qkv), 10, dtype=torch.float64)
        torch.library.opcheck(
            torch.ops.ddep.window_attention_backward, (gradient, *detached), test_utils=tests
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qkv": torch.ones(84)}, r"qkv has 1 dimensions; expected 2: \(T, 3 \* M \* D\)"),
        ({"qkv": torch.ones(84, 32)}, "qkv has 32 channels; expected 3 for each .* 2 heads"),
        ({"qkv": torch.ones(84, 30, dtype=torch.int64)}, "qkv is Long; expected a floating"),
        ({"padding": torch.ones(29)}, r"padding has shape \[29\]; expected .* = \[30\]"),
        ({"bias": torch.ones(2, 16)}, "bias has 2 dimensions; expected 3"),
        ({"bias": torch.ones(2, 16, 15)}, r"bias has shape \[2, 16, 15\]; expected"),
        ({"bias": torch.ones(2, 16, 16, dtype=torch.float64)}, "bias is Double and qkv Float"),
        ({"mask": torch.ones(3, 16, 16)}, r"mask has shape \[3, 16, 16\]; expected \(K, N, N\)"),
        ({"slots": torch.zeros(83, dtype=torch.int64)}, r"slots has shape \[83\]; expected"),
        ({"slots": torch.arange(84.0)}, "slots is Float; expected int64"),
        ({"slots": torch.arange(84) // 2}, "slots has 0; expected different numbers from 0"),
        ({"slots": torch.arange(84) - 1}, "slots has -1; expected .* below .* = 128"),
        ({"slots": torch.arange(84) + 45}, "slots has 128; expected"),
        ({"counts": (9, -1, 0, 0)}, "counts has -1; expected 0 or more"),
    ],
)
def test_wrong_arguments(compiled_on_cpu: str, change: dict[str, object], message: str) -> None:
    inputs = random_inputs(2, 6, 7, 4, 2).to(torch.float32)._replace(**change)
    with pytest.raises(ValueError, match=f"^window_attention: {message}"):
        apply(inputs)


@pytest.mark.parametrize("sizes", MAPS)
def test_decomposed(sizes: tuple[int, ...]) -> None:
    """PyTorch's own operators, also where there are no windows of a kind."""
    inputs = random_inputs(*sizes)
    with extension.decomposed():
        output = apply(inputs)
    assert (output - formula(inputs)).norm() <= 1e-12 * output.norm()
