"""Multi-scale deformable attention: the module with its projections."""

from __future__ import annotations

import math

import torch
from torch import nn

from ddep.ops.ms_deform_attn import ms_deform_attn_fused


class MSDeformAttn(nn.Module):
    """Attend to a few learned offsets around each query's reference point, on every level.

    Deformable DETR (Zhu et al., 2021, arXiv 2010.04159), section 4.1, equation 3. Parameter names
    are those of Deformable DETR and Mask2Former.

    Args:
        d_model: channels C of queries and values.
        n_levels: number of feature levels L.
        n_heads: number of attention heads M; divides ``d_model``.
        n_points: sampling points P per head and level.

    Raises:
        ValueError: ``d_model`` is not a multiple of ``n_heads``.
    """

    def __init__(
        self, d_model: int = 256, n_levels: int = 4, n_heads: int = 8, n_points: int = 4
    ) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"d_model {d_model} is not a multiple of n_heads {n_heads}")
        self.d_model = d_model
        self.n_levels = n_levels
        self.n_heads = n_heads
        self.n_points = n_points
        self.sampling_offsets = nn.Linear(d_model, n_heads * n_levels * n_points * 2)
        self.attention_weights = nn.Linear(d_model, n_heads * n_levels * n_points)
        self.value_proj = nn.Linear(d_model, d_model)
        self.output_proj = nn.Linear(d_model, d_model)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise as in appendix A.4 of the paper.

        Each head has a direction of its own, point k lies k pixels away (in the maximum norm), and
        all points have equal weights.
        """
        angles = torch.arange(self.n_heads) * (2 * math.pi / self.n_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions /= directions.abs().amax(dim=-1, keepdim=True)
        distances = torch.arange(1, self.n_points + 1)
        # (M, P, 2) -> (M, L, P, 2)
        offsets = directions[:, None] * distances[:, None]
        offsets = offsets[:, None].expand(-1, self.n_levels, -1, -1)
        nn.init.zeros_(self.sampling_offsets.weight)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: torch.Tensor,
        reference_points: torch.Tensor,
        input_flatten: torch.Tensor,
        input_spatial_shapes: torch.Tensor,
        input_level_start_index: torch.Tensor,
        input_padding_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend from ``query`` to ``input_flatten``.

        Args:
            query: (N, Q, C), position encodings included.
            reference_points: (N, Q, L, 2), (x, y) as fractions of each level's width and height.
            input_flatten: (N, S, C), the levels one after the other, each row by row.
            input_spatial_shapes: (L, 2) int64, (H, W) of each level; best on the CPU, where
                reading them does not wait for a GPU.
            input_level_start_index: (L,) int64, where each level starts along S.
            input_padding_mask: (N, S) bool, true for padding, whose value is zero; None if there
                is none.

        Returns:
            (N, Q, C).

        Raises:
            ValueError: S is not the sum of H*W.
        """
        batch, queries, _ = query.shape
        value = self.value_proj(input_flatten)
        if input_padding_mask is not None:
            value = value.masked_fill(input_padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.n_heads, -1))
        points = (batch, queries, self.n_heads, self.n_levels, self.n_points)
        offsets = self.sampling_offsets(query).view(*points, 2)
        logits = self.attention_weights(query).view(points)
        output = ms_deform_attn_fused(
            value,
            input_spatial_shapes,
            input_level_start_index,
            reference_points,
            offsets,
            logits,
        )
        return self.output_proj(output)

    def sampling_points(
        self,
        query: torch.Tensor,
        reference_points: torch.Tensor,
        input_spatial_shapes: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute where :meth:`forward` samples and how it weighs the samples.

        Args:
            query, reference_points, input_spatial_shapes: as for :meth:`forward`.

        Returns:
            Locations (N, Q, M, L, P, 2), (x, y) as fractions of each level's width and height: the
            reference point plus the offset. Weights (N, Q, M, L, P), which sum to 1 over L and P.
        """
        points = (*query.shape[:2], self.n_heads, self.n_levels, self.n_points)
        offsets = self.sampling_offsets(query).view(*points, 2)
        # Offsets are in pixels of their level: (H, W) -> (W, H), (L, 1, 2).
        size = input_spatial_shapes.flip(-1)[:, None].to(offsets)
        locations = reference_points[:, :, None, :, None] + offsets / size
        weights = self.attention_weights(query).view(points).flatten(3).softmax(-1)
        return locations, weights.view(points)
