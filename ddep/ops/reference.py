"""Multi-scale deformable attention in plain PyTorch, on top of ``grid_sample``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ddep.ops.arguments import check_arguments


def ms_deform_attn_reference(
    value: torch.Tensor,
    spatial_shapes: torch.Tensor,
    level_start_index: torch.Tensor,
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
) -> torch.Tensor:
    """Compute equation 3 of Deformable DETR (arXiv 2010.04159), without the projections.

    Shapes, dtypes and semantics are those of :func:`ddep.ops.ms_deform_attn`.
    """
    check_arguments(value, spatial_shapes, level_start_index, sampling_locations, attention_weights)
    return _sample(
        value,
        spatial_shapes.tolist(),
        level_start_index.tolist(),
        sampling_locations,
        attention_weights,
    )


def _sample(
    value: torch.Tensor,
    spatial_shapes: Sequence[Sequence[int]],
    level_start_index: Sequence[int],
    sampling_locations: torch.Tensor,
    attention_weights: torch.Tensor,
) -> torch.Tensor:
    value = _lower_under_autocast(value)
    batch, _, heads, channels = value.shape
    queries = sampling_locations.shape[1]
    dtype = _compute_dtype(value)
    # (N, Q, M, L, P, 2) -> per level (N * M, Q, P, 2), in grid_sample's [-1, 1]
    grids = (2 * sampling_locations.to(dtype) - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    # (N, Q, M, L, P) -> per level (N * M, 1, Q, P)
    weights = attention_weights.to(dtype).permute(3, 0, 2, 1, 4).flatten(1, 2).unsqueeze(2)
    output = value.new_zeros(batch * heads, channels, queries, dtype=dtype)
    for (height, width), start, grid, weight in zip(
        spatial_shapes, level_start_index, grids, weights, strict=True
    ):
        if height * width == 0:
            continue  # grid_sample refuses a level without pixels
        level = value.narrow(1, start, height * width).to(dtype)
        level = level.permute(0, 2, 3, 1).reshape(batch * heads, channels, height, width)
        # (N * M, D, Q, P)
        sampled = F.grid_sample(
            level, grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )
        output = output + (sampled * weight).sum(-1)
    output = output.view(batch, heads * channels, queries).transpose(1, 2)
    return output.contiguous().to(value.dtype)


def ms_deform_attn_fused_reference(
    value: torch.Tensor,
    spatial_shapes: torch.Tensor | Sequence[Sequence[int]],
    level_start_index: torch.Tensor | Sequence[int],
    reference_points: torch.Tensor,
    sampling_offsets: torch.Tensor,
    attention_logits: torch.Tensor,
) -> torch.Tensor:
    """Compute :func:`ms_deform_attn_reference` from a module's raw projections.

    Shapes, dtypes and semantics are those of :func:`ddep.ops.ms_deform_attn_fused`. Sizes may also
    be lists of numbers, which are symbols where ``torch.export`` traces; they are not checked.
    """
    if isinstance(spatial_shapes, torch.Tensor):
        check_arguments(
            value,
            spatial_shapes,
            level_start_index,
            sampling_offsets,
            attention_logits,
            reference_points,
        )
        spatial_shapes, level_start_index = spatial_shapes.tolist(), level_start_index.tolist()
    dtype = _compute_dtype(value)
    # (W, H) of each level, (L, 1, 2). At least 1, because dividing by the 0 of an empty level would
    # make the gradient NaN.
    size = torch.tensor([[width, height] for height, width in spatial_shapes], device="cpu")
    size = size[:, None].clamp(min=1).to(value.device, dtype, non_blocking=True)
    # (N, Q, 1, L, 1, 2) + (N, Q, M, L, P, 2)
    locations = reference_points[:, :, None, :, None].to(dtype) + sampling_offsets / size
    weights = attention_logits.to(dtype).flatten(3).softmax(-1).view_as(attention_logits)
    return _sample(value, spatial_shapes, level_start_index, locations, weights)


def _compute_dtype(value: torch.Tensor) -> torch.dtype:
    """The dtype of coordinates and sums, for which half types are too coarse."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _lower_under_autocast(value: torch.Tensor) -> torch.Tensor:
    device = value.device.type
    if value.dtype == torch.float64 or not torch.amp.is_autocast_available(device):
        return value
    if not torch.is_autocast_enabled(device):
        return value
    return value.to(torch.get_autocast_dtype(device))
