"""The implementations to compare, all from a module's raw projections to sampled values."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ddep.errors import UserError, one_line
from ddep.ops.ms_deform_attn import ms_deform_attn
from op_cases import Inputs

Implementation = Callable[..., torch.Tensor]


def unfused(
    value: torch.Tensor,
    spatial_shapes: torch.Tensor,
    level_start_index: torch.Tensor,
    reference_points: torch.Tensor,
    sampling_offsets: torch.Tensor,
    attention_logits: torch.Tensor,
    operator: Implementation = ms_deform_attn,
) -> torch.Tensor:
    """Softmax and locations in PyTorch, then ``operator``, with Deformable DETR's arguments."""
    dtype = reference_points.dtype
    size = spatial_shapes.flip(-1)[:, None].to(value.device, dtype, non_blocking=True)
    locations = reference_points[:, :, None, :, None] + sampling_offsets / size
    weights = attention_logits.to(dtype).flatten(3).softmax(-1).view_as(attention_logits)
    return operator(value, spatial_shapes, level_start_index, locations, weights)


def peer_implementation(peer: ModuleType, device: torch.device) -> Implementation:
    """The unfused chain with the kernels of ``peer``, which has Deformable DETR's two functions."""

    class Operator(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, *arguments: torch.Tensor) -> torch.Tensor:
            context.save_for_backward(*arguments)
            step = min(len(arguments[0]), 64)
            return peer.ms_deform_attn_forward(*arguments, step)

        @staticmethod
        @once_differentiable
        def backward(context: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            arguments = context.saved_tensors
            step = min(len(arguments[0]), 64)
            value, locations, weights = peer.ms_deform_attn_backward(
                *arguments, grad_output.contiguous(), step
            )
            return value, None, None, locations, weights

    on_device: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def operator(
        value: torch.Tensor,
        spatial_shapes: torch.Tensor,
        level_start_index: torch.Tensor,
        locations: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        # Its kernels read the sizes on the device; a model copies them once for all layers.
        key = tuple(spatial_shapes.flatten().tolist())
        if key not in on_device:
            on_device[key] = spatial_shapes.to(device), level_start_index.to(device)
        return Operator.apply(value, *on_device[key], locations, weights)

    return lambda *arguments: unfused(*arguments, operator=operator)


def load_peer(name: str) -> ModuleType:
    """Import a module with Deformable DETR's ``ms_deform_attn_forward`` and ``..._backward``.

    Raises:
        UserError: it cannot be imported, or it lacks one of the two functions.
    """
    try:
        peer = importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"--peer {name} cannot be imported: {one_line(error)}") from error
    for function in ("ms_deform_attn_forward", "ms_deform_attn_backward"):
        if not hasattr(peer, function):
            raise UserError(
                f"--peer {name} has no {function}, which Deformable DETR's kernels have"
            )
    return peer


def run(implementation: Implementation, inputs: Inputs, backward: bool) -> list[torch.Tensor]:
    """Return the output and, after the backward pass, the gradients of value, offsets, logits."""
    if not backward:
        with torch.no_grad():
            return [implementation(*inputs.arguments())]
    leaves = (inputs.value, inputs.sampling_offsets, inputs.attention_logits)
    for leaf in leaves:
        leaf.requires_grad_()
    output = implementation(*inputs.arguments())
    return [output.detach(), *torch.autograd.grad(output, leaves, inputs.grad_output)]
