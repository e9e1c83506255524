"""Operators of deformable attention."""

from ddep.ops.ms_deform_attn import ms_deform_attn

__all__ = ["ms_deform_attn"]
