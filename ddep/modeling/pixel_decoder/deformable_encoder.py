"""Deformable DETR's transformer encoder, which works on several feature maps."""

from __future__ import annotations

from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import nn

from ddep.modeling.activation_checkpoint import checkpointed
from ddep.modeling.position_encoding import sine_position_encoding
from ddep.ops import MSDeformAttn, extension


class MSDeformAttnTransformerEncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each with residual and LayerNorm.

    Args:
        d_model: channels C.
        d_ffn: hidden channels of the feed-forward network.
        dropout: rate, after the attention and after both linear layers.
        n_levels, n_heads, n_points: see :class:`ddep.ops.MSDeformAttn`.
    """

    def __init__(
        self, d_model: int, d_ffn: int, dropout: float, n_levels: int, n_heads: int, n_points: int
    ) -> None:
        super().__init__()
        self.self_attn = MSDeformAttn(d_model, n_levels, n_heads, n_points)
        self.norm1 = nn.LayerNorm(d_model)
        self.linear1 = nn.Linear(d_model, d_ffn)
        self.linear2 = nn.Linear(d_ffn, d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(
        self,
        src: torch.Tensor,
        pos: torch.Tensor,
        reference_points: torch.Tensor,
        spatial_shapes: torch.Tensor,
        level_start_index: torch.Tensor,
    ) -> torch.Tensor:
        """Map (N, S, C) to (N, S, C).

        Args:
            src: (N, S, C), the levels one after the other.
            pos: (1 or N, S, C), added to the queries.
            reference_points, spatial_shapes, level_start_index: see
                :meth:`ddep.ops.MSDeformAttn.forward`.
        """
        attended = self.self_attn(
            src + pos, reference_points, src, spatial_shapes, level_start_index
        )
        src = self.norm1(src + self.dropout(attended))
        hidden = self.dropout(F.relu(self.linear1(src), inplace=True))
        return self.norm2(src + self.dropout(self.linear2(hidden)))


class MSDeformAttnTransformerEncoder(nn.Module):
    """A stack of :class:`MSDeformAttnTransformerEncoderLayer`; arguments as there.

    With ``use_checkpoint``, only the layers' inputs are kept, and the rest is recomputed in the
    backward pass.
    """

    def __init__(
        self,
        num_layers: int,
        d_model: int,
        d_ffn: int,
        dropout: float,
        n_levels: int,
        n_heads: int,
        n_points: int,
        use_checkpoint: bool,
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.layers = nn.ModuleList(
            MSDeformAttnTransformerEncoderLayer(
                d_model, d_ffn, dropout, n_levels, n_heads, n_points
            )
            for _ in range(num_layers)
        )

    def forward(
        self, src: torch.Tensor, pos: torch.Tensor, shapes: list[tuple[int, int]]
    ) -> torch.Tensor:
        """Map (N, S, C) to (N, S, C).

        Args:
            src: (N, S, C), the levels one after the other, each row by row.
            pos: (1, S, C), added to the queries.
            shapes: (H, W) of each level.
        """
        starts = list(accumulate((height * width for height, width in shapes[:-1]), initial=0))
        spatial_shapes, level_start_index = shapes, starts
        if not extension.is_decomposed():  # there, tensors would hide what sizes depend on
            # They stay on the CPU, so that nothing waits for a GPU to know them.
            spatial_shapes = torch.tensor(shapes, device="cpu")
            level_start_index = torch.tensor(starts, device="cpu")
        points = torch.cat([_pixel_centres(*shape, src) for shape in shapes])
        # The same fraction of every level: (S, 2) -> (N, S, L, 2)
        points = points[None, :, None].expand(src.shape[0], -1, len(shapes), -1)
        for layer in self.layers:
            src = checkpointed(
                layer,
                src,
                pos,
                points,
                spatial_shapes,
                level_start_index,
                recompute=self.use_checkpoint,
            )
        return src


class MSDeformAttnTransformerEncoderOnly(nn.Module):
    """Deformable DETR's encoder with its position and level embeddings.

    Deformable DETR (Zhu et al., 2021, arXiv 2010.04159), section 4.1, "Deformable Transformer
    Encoder". There is no padding mask: as in Mask2Former, the padding of a batch takes part.

    Args:
        d_model: channels C, a multiple of 4 and of ``nhead``.
        nhead: attention heads.
        num_encoder_layers: number of layers.
        dim_feedforward: hidden channels of the feed-forward networks.
        dropout: rate.
        num_feature_levels: number of feature maps L.
        enc_n_points: sampling points per head and level.
        use_checkpoint: see :class:`MSDeformAttnTransformerEncoder`.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        num_encoder_layers: int,
        dim_feedforward: int,
        dropout: float,
        num_feature_levels: int,
        enc_n_points: int,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.d_model = d_model
        self.encoder = MSDeformAttnTransformerEncoder(
            num_encoder_layers,
            d_model,
            dim_feedforward,
            dropout,
            num_feature_levels,
            nhead,
            enc_n_points,
            use_checkpoint,
        )
        self.level_embed = nn.Parameter(torch.randn(num_feature_levels, d_model))

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        """Let every pixel of every map attend to all maps.

        Args:
            features: L maps (N, C, H_l, W_l), in the order of the level embeddings.

        Returns:
            Maps of the same shapes and order.
        """
        shapes = [(feature.shape[-2], feature.shape[-1]) for feature in features]
        positions = [
            _flatten(sine_position_encoding(*shape, self.d_model, features[0].device)) + embedding
            for shape, embedding in zip(shapes, self.level_embed, strict=True)
        ]
        src = torch.cat([_flatten(feature) for feature in features], dim=1)
        memory = self.encoder(src, torch.cat(positions, dim=1), shapes)
        levels = memory.split([height * width for height, width in shapes], dim=1)
        return [
            level.transpose(1, 2).unflatten(2, shape)
            for level, shape in zip(levels, shapes, strict=True)
        ]


def _flatten(feature: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) -> (N, H * W, C)."""
    return feature.flatten(2).transpose(1, 2)


def _pixel_centres(height: int, width: int, like: torch.Tensor) -> torch.Tensor:
    """(x, y) of every pixel's centre as fractions of the map: (H * W, 2), row by row."""
    y = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
    x = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
    return torch.cartesian_prod(y, x).flip(-1)
