"""Multi-scale deformable attention: the functions."""

from __future__ import annotations

import torch

from ddep.ops import extension
from ddep.ops.reference import ms_deform_attn_fused_reference, ms_deform_attn_reference


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

    Coordinates and sums are float64 for float64 and float32 for all other dtypes. Under autocast,
    ``value`` is cast to the lower precision and the rest is taken as it is. At a pixel's centre,
    where the slope changes, gradients are those of the right-hand side.

    The compiled operators have only first derivatives, and none under ``torch.func``. They treat a
    NaN location as outside every level, where the reference returns NaN. Their gradients are the
    same from run to run on the CPU. On a GPU, the gradients of ``value`` are summed in any order,
    and refused under ``torch.use_deterministic_algorithms(True)``.

    Args:
        value: (N, S, M, D) floating; N images, S = sum of H*W over levels, M heads, D channels.
        spatial_shapes: (L, 2) int64; (H, W) of each level. On any device; on the CPU, reading the
            sizes does not wait for a GPU.
        level_start_index: (L,) int64; where each level starts along S. On any device, as above.
        sampling_locations: (N, Q, M, L, P, 2), (x, y) as fractions of the level's width and height.
        attention_weights: (N, Q, M, L, P); sums to 1 over L and P in the paper, not required here.
            The last two are floating, and float64 if and only if ``value`` is.

    Returns:
        (N, Q, M * D), of value's dtype.

    Raises:
        ValueError: an argument's shape, dtype or device does not fit the others', or S is not the
            sum of H*W. Sizes on a GPU are not checked, as that would wait for it: there, a level
            that does not fit into S is treated as empty.
    """
    if extension.use_compiled(value.device.type):
        run = torch.ops.ddep.ms_deform_attn
    else:
        run = ms_deform_attn_reference
    return run(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)


def ms_deform_attn_fused(
    value: torch.Tensor,
    spatial_shapes: torch.Tensor,
    level_start_index: torch.Tensor,
    reference_points: torch.Tensor,
    sampling_offsets: torch.Tensor,
    attention_logits: torch.Tensor,
) -> torch.Tensor:
    """Compute :func:`ms_deform_attn` from raw projections, which is faster.

    Deformable DETR, section 4.1: locations are reference points plus offsets, and attention weights
    are the logits' softmax over all levels and points of a head.

    Args:
        value, spatial_shapes, level_start_index: as in :func:`ms_deform_attn`.
        reference_points: (N, Q, L, 2), (x, y) as fractions of each level's width and height.
        sampling_offsets: (N, Q, M, L, P, 2), (x, y) in pixels of the level.
        attention_logits: (N, Q, M, L, P).

    Returns:
        (N, Q, M * D), of value's dtype.

    Raises:
        ValueError: as in :func:`ms_deform_attn`.
    """
    if extension.use_compiled(value.device.type):
        run = torch.ops.ddep.ms_deform_attn_fused
    else:
        run = ms_deform_attn_fused_reference
    return run(
        value,
        spatial_shapes,
        level_start_index,
        reference_points,
        sampling_offsets,
        attention_logits,
    )
