from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ddep.modeling.transformer_decoder.attention import MultiheadAttention


def random_inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """2 images, 5 queries, 7 pixels, 12 channels."""
    generator = torch.Generator().manual_seed(0)
    return tuple(
        torch.randn(2, length, 12, dtype=dtype, generator=generator, requires_grad=True)
        for length in (5, 7, 7)
    )


def random_mask() -> Tensor:
    allowed = torch.rand(2, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.5
    allowed[..., 0] = True
    return allowed


@pytest.mark.parametrize("masked", [False, True])
def test_matches_torch(masked: bool) -> None:
    """Outputs and all gradients, given the same weights."""
    ours = MultiheadAttention(12, 3).double()
    nn.init.normal_(ours.in_proj_bias)
    nn.init.normal_(ours.out_proj.bias)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    theirs.load_state_dict(ours.state_dict())
    inputs, allowed = random_inputs(), random_mask() if masked else None
    found = ours(*inputs, allowed)
    forbidden = ~allowed.repeat_interleave(3, dim=0) if masked else None
    expected, _ = theirs(*inputs, attn_mask=forbidden)
    torch.testing.assert_close(found, expected)
    gradients = []
    for module, outputs in ((ours, found), (theirs, expected)):
        leaves = [*inputs, *module.parameters()]
        gradients.append(torch.autograd.grad(outputs.square().sum(), leaves))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_same_initial_weights_as_torch() -> None:
    states = []
    for make in (MultiheadAttention, nn.MultiheadAttention):
        torch.manual_seed(3)
        states.append(make(12, 3).state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_dropout_in_training_only() -> None:
    attention = MultiheadAttention(12, 3, dropout=0.5)
    inputs = random_inputs(torch.float32)
    assert not torch.equal(attention(*inputs), attention(*inputs))
    attention.eval()
    assert torch.equal(attention(*inputs), attention(*inputs))
