"""Argument checks for the PyTorch reference; ``csrc/ms_deform_attn.cpp`` has the same checks."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def check_arguments(
    value: torch.Tensor,
    spatial_shapes: torch.Tensor,
    level_start_index: torch.Tensor,
    places: torch.Tensor,
    weights: torch.Tensor,
    reference_points: torch.Tensor | None = None,
) -> None:
    """Check the arguments of :func:`ddep.ops.ms_deform_attn`, or of the fused form.

    Args:
        places: ``sampling_locations``, or ``sampling_offsets`` if ``reference_points`` are given.
        weights: ``attention_weights``, or ``attention_logits``.

    Raises:
        ValueError: an argument does not fit; names it, what was found and what was expected.
    """
    fused = reference_points is not None
    places_name = "sampling_offsets" if fused else "sampling_locations"
    weights_name = "attention_logits" if fused else "attention_weights"
    _check_dimensions("value", value, "(N, S, M, D)", 4)
    _check_dimensions(places_name, places, "(N, Q, M, L, P, 2)", 6)
    n, _, m, _ = value.shape
    _, q, _, l, p, _ = places.shape  # noqa: E741 (the paper's names)
    _check_shape(places_name, places, "(N, Q, M, L, P, 2)", (n, q, m, l, p, 2))
    _check_shape(weights_name, weights, "(N, Q, M, L, P)", (n, q, m, l, p))
    _check_shape("spatial_shapes", spatial_shapes, "(L, 2)", (l, 2))
    _check_shape("level_start_index", level_start_index, "(L,)", (l,))
    floating = {"value": value, places_name: places, weights_name: weights}
    if fused:
        _check_shape("reference_points", reference_points, "(N, Q, L, 2)", (n, q, l, 2))
        floating["reference_points"] = reference_points
    for name, tensor in floating.items():
        _check_floating(name, tensor, value)
    for name, tensor in (
        ("spatial_shapes", spatial_shapes),
        ("level_start_index", level_start_index),
    ):
        _check(
            tensor.device.type == "cpu" or tensor.device == value.device,
            f"{name} is on {tensor.device}, value on {value.device}; "
            "expected it there or on the CPU",
        )
        _check(tensor.dtype == torch.int64, f"{name} is {tensor.dtype}; expected int64")
    _check_levels(spatial_shapes.tolist(), level_start_index.tolist(), value.shape[1])


def _check(fits: bool, message: str) -> None:
    if not fits:
        raise ValueError(f"ms_deform_attn: {message}")


def _check_dimensions(name: str, tensor: torch.Tensor, meaning: str, expected: int) -> None:
    _check(
        tensor.dim() == expected,
        f"{name} has {tensor.dim()} dimensions; expected {expected}: {meaning}",
    )


def _check_shape(name: str, tensor: torch.Tensor, meaning: str, expected: Sequence[int]) -> None:
    _check(
        tuple(tensor.shape) == tuple(expected),
        f"{name} has shape {list(tensor.shape)}; expected {meaning} = {list(expected)}",
    )


def _check_floating(name: str, tensor: torch.Tensor, value: torch.Tensor) -> None:
    _check(tensor.device == value.device, f"{name} is on {tensor.device}, value on {value.device}")
    _check(tensor.is_floating_point(), f"{name} is {tensor.dtype}; expected a floating dtype")
    _check(
        (tensor.dtype == torch.float64) == (value.dtype == torch.float64),
        f"{name} is {tensor.dtype} and value {value.dtype}; float64 does not mix with other dtypes",
    )


def _check_levels(shapes: list[list[int]], starts: list[int], tokens: int) -> None:
    for level, ((height, width), start) in enumerate(zip(shapes, starts, strict=True)):
        _check(
            min(height, width, start) >= 0 and start + height * width <= tokens,
            f"level {level} is {height} x {width} in spatial_shapes and begins at {start} in "
            f"level_start_index; that does not fit into value's S = {tokens}",
        )
    total = sum(height * width for height, width in shapes)
    _check(
        total == tokens,
        f"value has S = {tokens}; expected the sum of H * W over spatial_shapes = {total}",
    )
