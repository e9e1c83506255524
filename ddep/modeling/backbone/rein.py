"""Rein: learnable tokens that refine the features of a frozen vision transformer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn


class Rein(nn.Module):
    """Changes the tokens of a plain vision transformer after each block.

    Rein (Wei et al., 2024, arXiv 2312.04265, section 3). With the learnable tokens T of a block, m
    x C, each patch token f becomes f + s * delta, where

        A = softmax(f T^t / sqrt(C))
        delta = refine(A[1:] values(T[1:]) + f)

    The first learnable token has no value: a patch that attends to it is changed less by the
    others. T is a product of two matrices of low rank. The linear layers ``values`` and ``refine``
    and the scale s are shared by all blocks. Class and register tokens pass unchanged.
    """

    def __init__(
        self,
        *,
        depth: int,
        channels: int,
        patch_size: int,
        num_prefix_tokens: int,
        num_tokens: int = 100,
        rank: int = 16,
    ) -> None:
        """
        Args:
            depth: number of blocks.
            channels: C.
            patch_size: of the transformer in pixels, for the size of the initial tokens.
            num_prefix_tokens: class and register tokens, which come first.
            num_tokens: m.
            rank: of T.
        """
        super().__init__()
        self.channels = channels
        self.num_prefix_tokens = num_prefix_tokens
        self.tokens_a = nn.Parameter(torch.empty(depth, num_tokens, rank))
        self.tokens_b = nn.Parameter(torch.empty(depth, rank, channels))
        # As in the authors' code.
        bound = math.sqrt(6 / (3 * patch_size**2 + math.sqrt(channels * rank)))
        nn.init.uniform_(self.tokens_a, -bound, bound)
        nn.init.uniform_(self.tokens_b, -bound, bound)
        self.values = nn.Linear(channels, channels)
        self.refine = nn.Linear(channels, channels)
        self.delta_scale = nn.Parameter(torch.tensor(0.001))

    def attach(self, blocks: Iterable[nn.Module]) -> None:
        """Let each of ``blocks`` return what :meth:`forward` makes of its output."""
        for layer, block in enumerate(blocks):
            block.register_forward_hook(partial(self._after_block, layer))

    def tokens(self) -> Tensor:
        """The learnable tokens of all blocks: (depth, m, C)."""
        return self.tokens_a @ self.tokens_b

    def forward(self, features: Tensor, layer: int) -> Tensor:
        """Refine the output of a block.

        Args:
            features: (B, N, C), class and register tokens first.
            layer: the block, counted from 0.

        Returns:
            The same shape and dtype.
        """
        tokens = self.tokens_a[layer] @ self.tokens_b[layer]
        patches = features[:, self.num_prefix_tokens :]
        attention = (patches @ tokens.T * self.channels**-0.5).softmax(dim=-1)
        delta = self.refine(attention[..., 1:] @ self.values(tokens[1:]) + patches)
        refined = patches + self.delta_scale * delta
        prefix = features[:, : self.num_prefix_tokens]
        return torch.cat([prefix, refined.to(features.dtype)], dim=1)

    def _after_block(self, layer: int, block: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return self(output, layer)
