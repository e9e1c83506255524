"""Shapes and dtypes that the compiled operators return, for tensors without data.

PyTorch traces graphs with them (``torch.compile``, ``torch.export``).
"""

from __future__ import annotations

import torch
from torch import Tensor


def register() -> None:
    """Register the functions below with the operators, which must have been loaded.

    Raises:
        RuntimeError: an operator is missing.
    """
    fake = torch.library.register_fake
    fake("ddep::ms_deform_attn")(_output)
    fake("ddep::ms_deform_attn_fused")(_output)
    fake("ddep::ms_deform_attn_backward")(_gradients)
    fake("ddep::ms_deform_attn_fused_backward")(_gradients)
    fake("ddep::point_mask_costs")(_mask_costs)
    fake("ddep::dense_mask_costs")(_mask_costs)
    fake("ddep::uniform_points")(_uniform_points)
    fake("ddep::uncertain_points")(_uncertain_points)
    fake("ddep::point_mask_losses")(_mask_losses)
    fake("ddep::point_mask_losses_backward")(_mask_gradients)
    fake("ddep::dense_mask_losses")(_mask_losses)
    fake("ddep::dense_mask_losses_backward")(_mask_gradients)
    fake("ddep::window_attention")(_window_attention)
    fake("ddep::window_attention_backward")(_window_attention_gradients)


def _check_devices(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, *sampling: Tensor
) -> None:
    """Refuse to mix tensors with and without data: the result would have arbitrary values."""
    host = torch.device("cpu")
    for tensor in (spatial_shapes, level_start_index, *sampling):
        on_host = tensor.device == host and not tensor.is_floating_point()
        if tensor.device != value.device and not on_host:
            raise ValueError(
                f"ms_deform_attn: an argument is on {tensor.device}, value on {value.device}"
            )


def _output(
    value: Tensor, spatial_shapes: Tensor, level_start_index: Tensor, *sampling: Tensor
) -> Tensor:
    _check_devices(value, spatial_shapes, level_start_index, *sampling)
    batch, _, heads, channels = value.shape
    queries = sampling[-1].shape[1]
    return value.new_empty(batch, queries, heads * channels)


def _gradients(
    grad_output: Tensor,
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    *sampling: Tensor,
) -> tuple[Tensor, ...]:
    _check_devices(value, spatial_shapes, level_start_index, grad_output, *sampling)
    return tuple(tensor.new_empty(tensor.shape) for tensor in (value, *sampling))


def _two(logits: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.new_empty(shape, dtype=dtype), logits.new_empty(shape, dtype=dtype)


def _mask_costs(
    mask_logits: list[Tensor], masks: Tensor, num_targets: list[int], *points: Tensor
) -> tuple[Tensor, Tensor]:
    shape = (len(mask_logits), mask_logits[0].shape[1], masks.shape[0])
    return _two(mask_logits[0], shape)


def _uniform_points(seed: Tensor, rows: int, num_points: int) -> Tensor:
    return seed.new_empty(rows, num_points, 2, dtype=torch.float32)


def _uncertain_points(
    mask_logits: list[Tensor],
    images: Tensor,
    queries: Tensor,
    seed: Tensor,
    num_points: int,
    num_candidates: int,
    num_uncertain: int,
) -> Tensor:
    return images.new_empty(*images.shape, num_points, 2, dtype=torch.float32)


def _mask_losses(
    mask_logits: list[Tensor], images: Tensor, *others: Tensor
) -> tuple[Tensor, Tensor]:
    return _two(mask_logits[0], images.shape)


def _mask_gradients(
    grad_mask_loss: Tensor, grad_dice: Tensor, mask_logits: list[Tensor], *others: Tensor
) -> list[Tensor]:
    return [logits.new_empty(logits.shape) for logits in mask_logits]


def _window_attention(qkv: Tensor, *others: object) -> Tensor:
    return qkv.new_empty(qkv.shape[0], qkv.shape[1] // 3)


def _window_attention_gradients(
    grad_output: Tensor, qkv: Tensor, padding: Tensor | None, bias: Tensor, *others: object
) -> tuple[Tensor, ...]:
    of_padding = (qkv if padding is None else padding).new_empty(qkv.shape[1])
    return qkv.new_empty(qkv.shape), of_padding, bias.new_empty(bias.shape)
