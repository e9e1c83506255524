"""Attention inside windows of a feature map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddep.ops import extension
from ddep.ops.window_attention_reference import (
    window_attention_decomposed,
    window_attention_reference,
)


def window_attention(
    qkv: Tensor,
    padding: Tensor | None,
    bias: Tensor,
    mask: Tensor | None,
    slots: Tensor,
    counts: Sequence[int],
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Attend inside windows, with a bias for each pair of positions.

    Swin Transformer (Liu et al., 2021, arXiv 2103.14030), equation 4, without the projections. T
    tokens lie in W windows of N positions each; M heads have D channels each. Windows are of K
    kinds, each with its own mask. A position without a token is padding: others attend to it, and
    it has no result.

    On the CPU and without dropout, a compiled operator gathers a window's head, and keeps nothing
    but its arguments for the backward pass, which computes the attention again. Sums are float64
    for float64 and float32 for all other dtypes; the bits do not depend on the number of threads.
    It has only first derivatives, and none of ``mask``. Under autocast, ``qkv`` and ``padding`` are
    cast to the lower precision and the rest is taken as it is.

    Args:
        qkv: (T, 3 * M * D) floating; queries, keys and values of each token.
        padding: (3 * M * D,), those of padding, or None: zeros.
        bias: (M, N, N) floating, added to the logits.
        mask: (K, N, N), added to the logits in windows of each kind, or None.
        slots: (T,) int64; each token's place among the W * N positions, all different.
        counts: K integers, the windows of each kind, whose sum is W. Windows are ordered by kind.
            With ``mask`` None, one kind.
        scale: factor of the products of queries and keys.
        dropout: probability with which an attention weight is set to 0.

    Returns:
        (T, M * D), of qkv's dtype.

    Raises:
        ValueError: an argument's shape or dtype does not fit the others'. The reference leaves
            that to PyTorch.
    """
    arguments = qkv, padding, bias, mask, slots, counts, scale
    if extension.is_decomposed():
        return window_attention_decomposed(*arguments)
    if qkv.device.type == "cpu" and dropout == 0 and extension.use_compiled("cpu"):
        return torch.ops.ddep.window_attention(*arguments)
    return window_attention_reference(*arguments, dropout=dropout)
