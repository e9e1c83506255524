"""The layers of Swin Transformer (arXiv 2103.14030). Feature maps are (B,H,W,C) throughout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from ddep.modeling.activation_checkpoint import checkpointed
from ddep.modeling.backbone.windows import WindowLayout, shift_mask, window_layout
from ddep.ops import window_attention

PATCH_SIZE = 4


class PatchEmbed(nn.Module):
    """Cut the image into patches and project each linearly (section 3.1)."""

    def __init__(self, in_channels: int, embed_dim: int, norm: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, embed_dim, kernel_size=PATCH_SIZE, stride=PATCH_SIZE)
        self.norm = nn.LayerNorm(embed_dim) if norm else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B, ceil(H/4), ceil(W/4), C)."""
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % PATCH_SIZE, 0, -height % PATCH_SIZE))
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with relative position bias (equation 4)."""

    def __init__(
        self,
        dim: int,
        window_size: int,
        num_heads: int,
        qkv_bias: bool,
        qk_scale: float | None,
        attn_drop: float,
        proj_drop: float,
    ) -> None:
        super().__init__()
        self.scale = (dim // num_heads) ** -0.5 if qk_scale is None else qk_scale
        self.attn_drop = attn_drop
        span = 2 * window_size - 1
        self.relative_position_bias_table = nn.Parameter(torch.empty(span**2, num_heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        axis = torch.arange(window_size)
        # (M,M): the distance between two positions along one axis, counted from 0.
        distance = axis[:, None] - axis[None, :] + window_size - 1
        index = distance[:, None, :, None] * span + distance[None, :, None, :]
        self.register_buffer("relative_position_index", index.flatten(2).flatten(0, 1))
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, tokens: Tensor, layout: WindowLayout, mask: Tensor | None) -> Tensor:
        """Attend within each window.

        Windows are padded with zero tokens, of which query, key and value are the bias of ``qkv``.

        Args:
            tokens: (B,H,W,C).
            layout: the windows.
            mask: (kinds, N, N), added to the attention logits, or None.

        Returns:
            (B,H,W,C).
        """
        length = layout.window_size**2
        # (heads,N,N)
        bias = self.relative_position_bias_table.index_select(
            0, self.relative_position_index.flatten()
        )
        bias = bias.view(length, length, -1).permute(2, 0, 1)
        attended = window_attention(
            self.qkv(tokens).flatten(0, 2),
            self.qkv.bias,
            bias,
            mask,
            layout.slots,
            layout.counts,
            self.scale,
            dropout=self.attn_drop if self.training else 0.0,
        )
        return self.proj_drop(self.proj(attended.view(tokens.shape)))


class SwinMlp(Mlp):
    """timm's MLP, which computes its activation again in the backward pass.

    The input of the activation is kept anyway. Its output is as large, and the two are half of what
    a block keeps; a GELU costs little beside the matrix products.
    """

    def forward(self, tokens: Tensor) -> Tensor:
        """(...,C) -> (...,C)."""
        return checkpointed(self._after_first_layer, self.fc1(tokens), recompute=self.training)

    def _after_first_layer(self, hidden: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.drop1(self.act(hidden))))


class SwinBlock(nn.Module):
    """Window attention and MLP: two residual branches with a LayerNorm each (equation 3)."""

    def __init__(
        self, dim: int, mlp_ratio: float, drop: float, drop_path: float, **attention: Any
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, proj_drop=drop, **attention)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = SwinMlp(dim, int(dim * mlp_ratio), drop=drop)

    def forward(self, tokens: Tensor, layout: WindowLayout, mask: Tensor | None) -> Tensor:
        """(B,H,W,C) -> (B,H,W,C)."""
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), layout, mask))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class PatchMerging(nn.Module):
    """Join 2x2 tokens into one with twice the channels (section 3.1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = nn.LayerNorm(4 * dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,H,W,C) -> (B, ceil(H/2), ceil(W/2), 2C). Odd sizes are padded with zeros."""
        height, width = tokens.shape[1:3]
        if height % 2 or width % 2:
            tokens = F.pad(tokens, (0, 0, 0, width % 2, 0, height % 2))
        cells = tokens.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        # The original stacks (row, column) 00, 10, 01, 11: the column changes last.
        return self.reduction(self.norm(cells.permute(0, 1, 3, 4, 2, 5).flatten(3)))


class SwinStage(nn.Module):
    """Blocks of one resolution, alternately with regular and with shifted windows (section 3.2)."""

    def __init__(
        self, dim: int, window_size: int, drop_paths: Sequence[float], merge: bool, **block: Any
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.blocks = nn.ModuleList(
            SwinBlock(dim, window_size=window_size, drop_path=rate, **block) for rate in drop_paths
        )
        self.downsample = PatchMerging(dim) if merge else None
        # The mask depends only on the window size, so it is made once and moves with the module.
        mask = shift_mask(window_size, window_size // 2)
        self.register_buffer("shift_mask", mask, persistent=False)

    def forward(self, tokens: Tensor, recompute: bool) -> Tensor:
        """(B,H,W,C) -> (B,H,W,C), not yet merged.

        Args:
            tokens: the feature map.
            recompute: keep only the blocks' inputs and recompute the rest in the backward pass.
        """
        size, device = tokens.shape[:3], tokens.device
        shift = self.window_size // 2
        regular = window_layout(*size, self.window_size, 0, device), None
        shifted = regular
        if shift and len(self.blocks) > 1:
            shifted = window_layout(*size, self.window_size, shift, device), self.shift_mask
        for i, block in enumerate(self.blocks):
            layout, mask = shifted if i % 2 else regular
            tokens = checkpointed(block, tokens, layout, mask, recompute=recompute)
        return tokens
