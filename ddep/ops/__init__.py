"""The operators: functions and modules, compiled or in plain PyTorch."""

from ddep.ops.mask_costs import dense_mask_costs, point_mask_costs
from ddep.ops.mask_losses import dense_mask_losses, point_mask_losses
from ddep.ops.module import MSDeformAttn
from ddep.ops.ms_deform_attn import ms_deform_attn, ms_deform_attn_fused
from ddep.ops.point_drawing import draw_seed, uncertain_points, uniform_points
from ddep.ops.window_attention import window_attention

__all__ = [
    "MSDeformAttn",
    "dense_mask_costs",
    "dense_mask_losses",
    "draw_seed",
    "ms_deform_attn",
    "ms_deform_attn_fused",
    "point_mask_costs",
    "point_mask_losses",
    "uncertain_points",
    "uniform_points",
    "window_attention",
]
