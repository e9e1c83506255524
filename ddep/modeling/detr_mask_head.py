"""The head that predicts masks from DETR's boxes (DETR, arXiv 2005.12872, section 4.4, figure 8).

Each query looks at the encoded image once more, with weights for each head and no values; a small
FPN-like network turns these maps, the image and finer features into a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EncodedImages(NamedTuple):
    """What masks are predicted from, of B images.

    Attributes:
        queries: (B, Q, C), after the decoder's last layer.
        feature: (B, C, h, w), what the encoder was given.
        memory: (B, C, h, w), what it made of that.
        valid: (B, h, w) bool, false in the padding; None: no image has padding.
        features: of the backbone, coarse to fine, without the last one, (B, ., h', w') each.
    """

    queries: Tensor
    feature: Tensor
    memory: Tensor
    valid: Tensor | None
    features: Sequence[Tensor]


class AttentionMaps(nn.Module):
    """Attention of queries to the pixels of an image: weights alone.

    Args:
        dim: channels C, a multiple of ``heads``.
        heads: number of heads M.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(dim, dim)
        self.k_linear = nn.Linear(dim, dim)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self, queries: Tensor, images: Tensor, memory: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """Compute a map for each head of each query.

        Args:
            queries: (N, C), the decoder's output.
            images: (N,) int64, the image of each query, an index into the batch.
            memory: (B, C, h, w), the encoder's output.
            valid: (B, h, w) bool, false in the padding; None: no image has padding.

        Returns:
            (N, M, h, w). All weights of a query, over heads and pixels, sum to 1: DETR's softmax is
            over both.
        """
        query = self.q_linear(queries).unflatten(-1, (self.heads, -1))  # (N, M, C / M)
        key = F.conv2d(memory, self.k_linear.weight[..., None, None], self.k_linear.bias)
        key = key.unflatten(1, (self.heads, -1))[images]  # (N, M, C / M, h, w)
        logits = torch.einsum("nmc,nmchw->nmhw", query * query.shape[-1] ** -0.5, key)
        if valid is not None:
            logits = logits.masked_fill(~valid[images][:, None], -torch.inf)
        return logits.flatten(1).softmax(-1).view_as(logits)


class MaskHeadSmallConv(nn.Module):
    """Convolutions with group norms that bring attention maps to the stride of the finest feature.

    Args:
        dim: channels C of the encoder, 16, 32, 64 or a multiple of 128.
        heads: channels of the attention maps; C + heads is a multiple of 8.
        feature_dims: channels of three features of the backbone, coarse to fine, without the last.
    """

    def __init__(self, dim: int, heads: int, feature_dims: Sequence[int]) -> None:
        super().__init__()
        widths = (dim + heads, dim + heads, *(dim // part for part in (2, 4, 8, 16)))
        for number in range(1, 6):
            layer = nn.Conv2d(widths[number - 1], widths[number], 3, padding=1)
            self.add_module(f"lay{number}", layer)
            self.add_module(f"gn{number}", nn.GroupNorm(min(8, widths[number]), widths[number]))
        for number, channels in enumerate(feature_dims, start=1):
            self.add_module(f"adapter{number}", nn.Conv2d(channels, widths[number + 1], 1))
        self.out_lay = nn.Conv2d(widths[-1], 1, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                nn.init.zeros_(module.bias)

    def forward(
        self, feature: Tensor, maps: Tensor, images: Tensor, features: Sequence[Tensor]
    ) -> Tensor:
        """Predict masks.

        Args:
            feature: (B, C, h, w), what the encoder is given.
            maps: (N, M, h, w), see :class:`AttentionMaps`.
            images: (N,) int64, the image of each map, an index into the batch.
            features: of the backbone, coarse to fine, (B, ., h', w') each.

        Returns:
            (N, H, W) logits, of the size of the last feature.
        """
        x = torch.cat([feature[images], maps], 1)
        x = self._layer(2, self._layer(1, x))
        for number, finer in enumerate(features, start=1):
            adapted = getattr(self, f"adapter{number}")(finer)
            x = F.interpolate(x, size=finer.shape[-2:], mode="nearest")
            x = self._layer(number + 2, adapted[images] + x)
        return self.out_lay(x)[:, 0]

    def _layer(self, number: int, x: Tensor) -> Tensor:
        x = getattr(self, f"lay{number}")(x)
        return F.relu(getattr(self, f"gn{number}")(x))
