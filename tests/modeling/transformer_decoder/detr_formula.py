"""DETR's transformer layers in float64, written directly from the paper."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]


def layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return torch.einsum("...i,oi->...o", x, state[f"{name}.weight"]) + state[f"{name}.bias"]


def attention(
    state: State, name: str, query: Tensor, key: Tensor, value: Tensor, heads: int
) -> Tensor:
    """Multi-head attention, one head after the other."""
    weights, biases = (state[f"{name}.in_proj_{kind}"].chunk(3) for kind in ("weight", "bias"))
    query, key, value = (
        x @ weight.T + bias
        for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
    )
    size = query.shape[-1] // heads
    results = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = torch.einsum("bqc,bkc->bqk", query[..., part], key[..., part]) / size**0.5
        exponentials = (scores - scores.amax(-1, keepdim=True)).exp()
        results.append(exponentials / exponentials.sum(-1, keepdim=True) @ value[..., part])
    return linear(state, f"{name}.out_proj", torch.cat(results, dim=-1))


def feed_forward(state: State, x: Tensor) -> Tensor:
    return linear(state, "linear2", F.relu(linear(state, "linear1", x)))


def encoder_layer(state: State, x: Tensor, pos: Tensor, heads: int, pre_norm: bool) -> Tensor:
    def attend(y: Tensor) -> Tensor:
        return attention(state, "self_attn", y + pos, y + pos, y, heads)

    if pre_norm:
        x = x + attend(layer_norm(state, "norm1", x))
        return x + feed_forward(state, layer_norm(state, "norm2", x))
    x = layer_norm(state, "norm1", x + attend(x))
    return layer_norm(state, "norm2", x + feed_forward(state, x))


def decoder_layer(
    state: State,
    x: Tensor,
    memory: Tensor,
    pos: Tensor,
    query_pos: Tensor,
    heads: int,
    pre_norm: bool,
) -> Tensor:
    def attend(y: Tensor) -> Tensor:
        return attention(state, "self_attn", y + query_pos, y + query_pos, y, heads)

    def look(y: Tensor) -> Tensor:
        return attention(state, "multihead_attn", y + query_pos, memory + pos, memory, heads)

    if pre_norm:
        x = x + attend(layer_norm(state, "norm1", x))
        x = x + look(layer_norm(state, "norm2", x))
        return x + feed_forward(state, layer_norm(state, "norm3", x))
    x = layer_norm(state, "norm1", x + attend(x))
    x = layer_norm(state, "norm2", x + look(x))
    return layer_norm(state, "norm3", x + feed_forward(state, x))
