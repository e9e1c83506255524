from __future__ import annotations

import numpy as np
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


def test_keys_that_are_padding() -> None:
    """One mask for all queries, as torch's ``key_padding_mask``."""
    ours = MultiheadAttention(12, 3).double()
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double()
    theirs.load_state_dict(ours.state_dict())
    inputs = random_inputs()
    valid = torch.arange(7) < torch.tensor([[4], [7]])
    expected, weights = theirs(*inputs, key_padding_mask=~valid, average_attn_weights=False)
    torch.testing.assert_close(ours(*inputs, valid[:, None]), expected)
    found = ours.attention_weights(inputs[0], inputs[1], valid[:, None])
    torch.testing.assert_close(found, weights)


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


@pytest.mark.parametrize("masked", [False, True])
def test_weights_are_those_of_the_forward_pass(masked: bool) -> None:
    """Against a loop over heads in NumPy; times the values, they give the module's output."""
    module = MultiheadAttention(12, 3).double()
    nn.init.normal_(module.in_proj_bias)
    (query, key, value), allowed = random_inputs(), random_mask() if masked else None
    found = module.attention_weights(query, key, allowed)
    weights, biases = module.in_proj_weight.detach().numpy(), module.in_proj_bias.detach().numpy()
    attended = np.zeros((2, 5, 12))
    for image, head in np.ndindex(2, 3):
        q, k, v = (
            x[image].detach().numpy() @ weights[rows].T + biases[rows]
            for x, rows in zip(
                (query, key, value),
                (slice(12 * part + 4 * head, 12 * part + 4 * head + 4) for part in range(3)),
                strict=True,
            )
        )
        exponentials = np.exp(q @ k.T / 2)  # the root of 4 channels
        if masked:
            exponentials *= allowed[image].numpy()
        expected = exponentials / exponentials.sum(-1, keepdims=True)
        np.testing.assert_allclose(found[image, head].detach().numpy(), expected, rtol=1e-12)
        attended[image, :, 4 * head : 4 * head + 4] = expected @ v
    output = module.out_proj(torch.from_numpy(attended))
    torch.testing.assert_close(module(query, key, value, allowed), output)
