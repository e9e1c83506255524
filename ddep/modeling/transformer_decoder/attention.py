"""Multi-head attention with one mask for all heads."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class MultiheadAttention(nn.MultiheadAttention):
    """torch's attention of ``batch_first`` inputs, with the same parameters and numbers.

    torch's own forward takes a mask for each head and copies inputs to put the sequence first;
    this one takes a mask that all heads share and leaves inputs as they are. It returns no weights.

    Args:
        d_model: channels C, a multiple of ``nhead``.
        nhead: attention heads.
        dropout: rate on attention weights in training.
    """

    def __init__(self, d_model: int, nhead: int, dropout: float = 0.0) -> None:
        super().__init__(d_model, nhead, dropout=dropout, batch_first=True)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        allowed: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map queries (B, Q, C) to (B, Q, C).

        Args:
            query: (B, Q, C).
            key: (B, S, C).
            value: (B, S, C).
            allowed: (B, Q, S) bool, or (B, 1, S) for all queries alike, true where a query may
                attend; None allows everything. A query that may attend to nothing gets NaN.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        heads = [  # three of (B, heads, ., C / heads)
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        ]
        attended = F.scaled_dot_product_attention(
            *heads,
            attn_mask=None if allowed is None else allowed[:, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))

    def attention_weights(
        self, query: torch.Tensor, key: torch.Tensor, allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute the weights that :meth:`forward` gives to the values, which it never stores.

        Args:
            query, key, allowed: as for :meth:`forward`.

        Returns:
            (B, heads, Q, S), float32 or float64; each row sums to 1.
        """
        dtype = self.in_proj_weight.dtype
        heads = [  # two of (B, heads, ., C / heads)
            F.linear(x.to(dtype), weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(
                (query, key),
                self.in_proj_weight.chunk(3)[:2],
                self.in_proj_bias.chunk(3)[:2],
                strict=True,
            )
        ]
        logits = heads[0] @ heads[1].mT / math.sqrt(heads[0].shape[-1])
        if allowed is not None:
            logits = logits.masked_fill(~allowed[:, None], -math.inf)
        return logits.to(torch.promote_types(dtype, torch.float32)).softmax(-1)
