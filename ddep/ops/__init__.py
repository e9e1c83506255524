"""The operators: functions and modules, compiled or in plain PyTorch."""

from ddep.ops.mask_costs import dense_mask_costs, point_mask_costs
from ddep.ops.module import MSDeformAttn
from ddep.ops.ms_deform_attn import ms_deform_attn, ms_deform_attn_fused

__all__ = [
    "MSDeformAttn",
    "dense_mask_costs",
    "ms_deform_attn",
    "ms_deform_attn_fused",
    "point_mask_costs",
]
