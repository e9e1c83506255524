"""Multi-scale deformable attention: functions and module, compiled or in plain PyTorch."""

from ddep.ops.module import MSDeformAttn
from ddep.ops.ms_deform_attn import ms_deform_attn, ms_deform_attn_fused

__all__ = ["MSDeformAttn", "ms_deform_attn", "ms_deform_attn_fused"]
