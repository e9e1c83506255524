"""Attention inside windows in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor


def window_attention_reference(
    qkv: Tensor,
    padding: Tensor | None,
    bias: Tensor,
    mask: Tensor | None,
    slots: Tensor,
    counts: Sequence[int],
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Compute :func:`ddep.ops.window_attention`, with the same arguments and result."""
    windows = _windows(qkv, padding, slots, sum(counts), *bias.shape[:2])
    # Contiguous, because PyTorch's fused kernels read rows of it.
    bias = bias.contiguous()[None]
    if mask is not None:
        bias = bias + mask[:, None]
    outputs = []
    kinds = zip(bias.split(1), *(part.split(counts) for part in windows.unbind(0)), strict=True)
    for kind_bias, query, key, value in kinds:
        if query.shape[0] == 0:
            continue
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=kind_bias, dropout_p=dropout, scale=scale
        )
        outputs.append(output.transpose(1, 2).flatten(2))
    return torch.cat(outputs).flatten(0, 1).index_select(0, slots)


def window_attention_decomposed(
    qkv: Tensor,
    padding: Tensor | None,
    bias: Tensor,
    mask: Tensor | None,
    slots: Tensor,
    counts: Sequence[int],
    scale: float,
) -> Tensor:
    """As :func:`window_attention_reference`, for graphs: ``counts`` may be symbols.

    All windows are one product, because a graph cannot leave out kinds of which there are none.
    """
    windows = _windows(qkv, padding, slots, sum(counts), *bias.shape[:2])
    query, key, value = windows.unbind(0)
    logits = query @ key.transpose(-2, -1) * scale + bias
    if mask is not None:
        window = torch.arange(sum(counts), device=qkv.device)
        kinds = torch.stack([(window >= end).long() for end in accumulate(counts[:-1])]).sum(0)
        logits = logits + mask.index_select(0, kinds)[:, None]
    output = logits.softmax(-1) @ value
    return output.transpose(1, 2).flatten(2).flatten(0, 1).index_select(0, slots)


def _windows(
    qkv: Tensor, padding: Tensor | None, slots: Tensor, windows: int, heads: int, positions: int
) -> Tensor:
    """Tokens (T, 3 * M * D) -> queries, keys and values of windows, (3, W, M, N, D)."""
    channels = qkv.shape[1]
    padding = qkv.new_zeros(channels) if padding is None else padding.to(qkv.dtype)
    tokens = padding.expand(windows * positions, channels).index_copy(0, slots, qkv)
    tokens = tokens.view(windows, positions, 3, heads, channels // (3 * heads))
    return tokens.permute(2, 0, 3, 1, 4)
