"""Low-rank adaptation of a frozen vision transformer's attention."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LoRALinear(nn.Linear):
    """A linear layer to whose weight W a product of low rank is added: W + alpha / rank * B A.

    LoRA (Hu et al., 2022, arXiv 2106.09685, section 4.1). B starts at 0, and with it the change. W
    and the bias keep their names; A and B are ``lora_a`` (rank, in) and ``lora_b`` (out, rank).
    """

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        """
        Args:
            linear: the layer whose weight and bias are taken.
            rank: at least 1.
            alpha: size of the change.
        """
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_a = nn.Parameter(torch.empty(rank, linear.in_features))
        self.lora_b = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scaling = alpha / rank

    def forward(self, features: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        change = F.linear(F.linear(features, self.lora_a), self.lora_b)
        return super().forward(features) + self.scaling * change


def add_lora(blocks: Iterable[nn.Module], rank: int, alpha: float) -> None:
    """Replace ``attn.qkv`` and ``attn.proj`` of each block by a :class:`LoRALinear`, in place.

    Raises:
        ValueError: a block's attention has no such layers, or does not call them.
    """
    for block in blocks:
        attention = block.attn
        # Eva's attention with biases of its own reads the weight of qkv and does not call it.
        called = getattr(attention, "q_bias", None) is None
        for name in ("qkv", "proj"):
            linear = getattr(attention, name, None)
            if not called or not isinstance(linear, nn.Linear):
                raise ValueError(f"{type(attention).__name__} does not call one layer {name}")
            setattr(attention, name, LoRALinear(linear, rank, alpha))
