"""The three parts of a masked-attention decoder layer, and the mask embedding's MLP.

Each part is a residual branch with one LayerNorm, before it (``normalize_before``) or after the
sum. Mask2Former (Cheng et al., 2022, arXiv 2112.01527), section 3.2: no dropout anywhere.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ddep.modeling.transformer_decoder.attention import MultiheadAttention


class SelfAttentionLayer(nn.Module):
    """Queries attend to each other.

    Args:
        d_model: channels C.
        nhead: attention heads.
        normalize_before: LayerNorm before the branch instead of after the sum.
    """

    def __init__(self, d_model: int, nhead: int, normalize_before: bool) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead)
        self.norm = nn.LayerNorm(d_model)
        self.normalize_before = normalize_before
        reset_parameters(self)

    def forward(
        self,
        tgt: torch.Tensor,
        query_pos: torch.Tensor,
        allowed: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map queries (B, Q, C) to (B, Q, C).

        Args:
            tgt: the queries (B, Q, C).
            query_pos: their positions (B, Q, C).
            allowed: (B, 1, Q) bool, which queries are attended to; None allows all.
        """
        value = self.norm(tgt) if self.normalize_before else tgt
        query = value + query_pos
        tgt = tgt + self.self_attn(query, query, value, allowed)
        return tgt if self.normalize_before else self.norm(tgt)


class CrossAttentionLayer(nn.Module):
    """Queries attend to a feature map; arguments as in :class:`SelfAttentionLayer`."""

    def __init__(self, d_model: int, nhead: int, normalize_before: bool) -> None:
        super().__init__()
        self.multihead_attn = MultiheadAttention(d_model, nhead)
        self.norm = nn.LayerNorm(d_model)
        self.normalize_before = normalize_before
        reset_parameters(self)

    def forward(
        self,
        tgt: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        allowed: torch.Tensor,
        query_pos: torch.Tensor,
    ) -> torch.Tensor:
        """Map queries (B, Q, C) to (B, Q, C).

        Args:
            tgt: the queries (B, Q, C).
            key: the feature map, flattened (B, S, C), with its position encoding.
            value: the same without its position encoding.
            allowed: (B, Q, S) bool; true where a query may attend. No row is all false.
            query_pos: position of the queries (B, Q, C).
        """
        query = self.norm(tgt) if self.normalize_before else tgt
        tgt = tgt + self.multihead_attn(query + query_pos, key, value, allowed)
        return tgt if self.normalize_before else self.norm(tgt)


class FFNLayer(nn.Module):
    """A two-layer feed-forward network.

    Args:
        d_model: channels C.
        dim_feedforward: hidden channels.
        normalize_before: see :class:`SelfAttentionLayer`.
    """

    def __init__(self, d_model: int, dim_feedforward: int, normalize_before: bool) -> None:
        super().__init__()
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.normalize_before = normalize_before
        reset_parameters(self)

    def forward(self, tgt: torch.Tensor) -> torch.Tensor:
        """Map (B, Q, C) to (B, Q, C)."""
        hidden = self.norm(tgt) if self.normalize_before else tgt
        tgt = tgt + self.linear2(F.relu(self.linear1(hidden)))
        return tgt if self.normalize_before else self.norm(tgt)


class MLP(nn.Module):
    """Linear layers with ReLU between them.

    Args:
        input_dim, hidden_dim, output_dim: channels.
        num_layers: number of linear layers.
    """

    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int) -> None:
        super().__init__()
        dims = [input_dim, *[hidden_dim] * (num_layers - 1), output_dim]
        self.layers = nn.ModuleList(
            nn.Linear(before, after) for before, after in zip(dims[:-1], dims[1:], strict=True)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., input_dim) to (..., output_dim)."""
        *hidden_layers, last = self.layers
        for layer in hidden_layers:
            x = F.relu(layer(x))
        return last(x)


def reset_parameters(module: nn.Module) -> None:
    """Glorot initialisation of all matrices, as DETR does."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
