"""Queries that are made of an encoder's learnable tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class LinkedQueries(nn.Module):
    """Makes a decoder's queries of the tokens of all blocks of the encoder.

    Rein (Wei et al., 2024, arXiv 2312.04265, section 3.2): query i is a linear function of the
    maximum, the mean and the last of linear(T_i) over the blocks, where T_i is a block's token i.
    """

    def __init__(self, tokens: Callable[[], Tensor], channels: int, hidden_dim: int) -> None:
        """
        Args:
            tokens: returns the tokens of all blocks, (blocks, Q, channels). Their parameters are
                the encoder's.
            channels: of the tokens.
            hidden_dim: C, channels of the queries.
        """
        super().__init__()
        self._tokens = tokens
        self.transform = nn.Linear(channels, hidden_dim)
        self.merge = nn.Linear(3 * hidden_dim, hidden_dim)
        self.query_feat = nn.Linear(hidden_dim, hidden_dim)

    def forward(self) -> tuple[Tensor, Tensor]:
        """The initial queries, (Q, C), and their positions in every layer, (Q, C)."""
        tokens = self.transform(self._tokens())
        summary = torch.stack([tokens.amax(0), tokens.mean(0), tokens[-1]], dim=-1)
        positions = self.merge(summary.flatten(1))
        return self.query_feat(positions), positions
