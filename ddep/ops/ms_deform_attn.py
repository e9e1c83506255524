"""Multi-scale deformable attention: the function."""

from __future__ import annotations

import torch

from ddep.ops.reference import ms_deform_attn_reference


def ms_deform_attn(
    value: torch.Tensor,
    spatial_shapes: torch.Tensor,
    level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
) -> torch.Tensor:
    """Sample ``value`` at a few points per query, head and level, and sum with weights.

    Deformable DETR (Zhu et al., 2021, arXiv 2010.04159), section 4.1, equation 3, without the
    value and output projections. Sampling is bilinear with zeros outside the level, and a location
    (x, y) in [0, 1] x [0, 1] spans the level from border to border (``align_corners`` is false).

    Args:
        value: (N, S, M, D) floating; N images, S = sum of H*W over levels, M heads, D channels.
        spatial_shapes: (L, 2) int64; (H, W) of each level. On any device; if it stays on the CPU,
            nothing has to wait for a GPU to know the sizes.
        level_start_index: (L,) int64; where each level starts along S. On any device, as above.
        sampling_locations: (N, Q, M, L, P, 2), (x, y) as fractions of the level's width and height;
            of value's dtype.
        attention_weights: (N, Q, M, L, P), of value's dtype; sums to 1 over L and P in the paper,
            not required here.

    Returns:
        (N, Q, M * D), of value's dtype.

    Raises:
        ValueError: S is not the sum of H*W.
    """
    return ms_deform_attn_reference(
        value, spatial_shapes, level_start_index, sampling_locations, attention_weights
    )
