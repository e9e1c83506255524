"""Multi-scale deformable attention in plain PyTorch, on top of ``grid_sample``."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def ms_deform_attn_reference(
    value: torch.Tensor,
    spatial_shapes: torch.Tensor,
    level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
) -> torch.Tensor:
    """Deformable DETR (arXiv 2010.04159), equation 3, with the projections left out.

    Shapes, dtypes and semantics are those of :func:`ddep.ops.ms_deform_attn`.
    """
    batch, _, heads, channels = value.shape
    _, queries, _, _, points, _ = sampling_locations.shape
    # (N, Q, M, L, P, 2) -> per level (N * M, Q, P, 2), in grid_sample's [-1, 1]
    grids = (2 * sampling_locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    sampled = []
    for grid, (height, width), start in zip(
        grids, spatial_shapes.tolist(), level_start_index.tolist(), strict=True
    ):
        level = value[:, start : start + height * width]
        level = level.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        # (N * M, D, Q, P)
        sampled.append(
            F.grid_sample(level, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        )
    # (N, Q, M, L, P) -> (N * M, 1, Q, L * P)
    weights = attention_weights.transpose(1, 2).reshape(batch * heads, 1, queries, -1)
    output = (torch.cat(sampled, dim=-1) * weights).sum(-1)
    return output.view(batch, heads * channels, queries).transpose(1, 2).contiguous()
