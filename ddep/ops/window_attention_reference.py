"""Attention inside windows in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

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
    heads, positions = bias.shape[:2]
    channels = qkv.shape[1]
    padding = qkv.new_zeros(channels) if padding is None else padding.to(qkv.dtype)
    windows = padding.expand(sum(counts) * positions, channels).index_copy(0, slots, qkv)
    # (3, windows, heads, positions, channels)
    windows = windows.view(-1, positions, 3, heads, channels // (3 * heads)).permute(2, 0, 3, 1, 4)
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
