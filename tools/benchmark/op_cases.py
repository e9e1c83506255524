"""The problems that deformable attention is timed on: their sizes and random inputs.

A problem is self-attention of an encoder on three levels, strides 8, 16 and 32 of a square input,
with 8 heads of 32 channels and 4 points: every position is a query. Everything starts from a
module's raw projections and ends at the sampled values, so all implementations do the same work.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

STRIDES = (8, 16, 32)
HEADS, CHANNELS, POINTS = 8, 32, 4


@dataclass(frozen=True)
class Case:
    """One line of the table; ``size`` is the input's in pixels."""

    dtype: torch.dtype
    size: int
    batch: int
    backward: bool

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return [(self.size // stride, self.size // stride) for stride in STRIDES]

    @property
    def positions(self) -> int:
        """S, and the number of queries."""
        return sum(height * width for height, width in self.shapes)

    @property
    def least_bytes(self) -> int:
        """The bytes that any implementation has to read and write, each number once.

        Forward: value, reference points, offsets and logits are read, the output is written.
        Backward: the inputs and the output's gradient are read; the gradients of value, offsets and
        logits are written.
        """
        element = self.dtype.itemsize
        levels = len(STRIDES)
        tokens = self.batch * self.positions
        value = output = tokens * HEADS * CHANNELS * element
        offsets_and_logits = tokens * HEADS * levels * POINTS * 3 * element
        reference_points = tokens * levels * 2 * coordinate_dtype(self.dtype).itemsize
        forward = value + offsets_and_logits + reference_points + output
        gradients = value + offsets_and_logits
        return 2 * forward + gradients if self.backward else forward


@dataclass(frozen=True)
class Inputs:
    """Arguments of :func:`ddep.ops.ms_deform_attn_fused`, and the output's gradient."""

    value: torch.Tensor
    spatial_shapes: torch.Tensor
    level_start_index: torch.Tensor
    reference_points: torch.Tensor
    sampling_offsets: torch.Tensor
    attention_logits: torch.Tensor
    grad_output: torch.Tensor

    def arguments(self) -> tuple[torch.Tensor, ...]:
        return (
            self.value,
            self.spatial_shapes,
            self.level_start_index,
            self.reference_points,
            self.sampling_offsets,
            self.attention_logits,
        )


def coordinate_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of reference points, for which half types are too coarse."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Make random inputs, the same on every device; reference points are the positions' centres.

    Offsets are a few pixels, in odd multiples of 1/16: exact in every dtype, and no sample lies on
    the centre of a pixel, where gradients jump and rounding would decide. Sizes stay on the host,
    where the operators read them fastest.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    tokens = (case.batch, case.positions)
    points = (*tokens, HEADS, len(STRIDES), POINTS)
    sizes = torch.tensor([height * width for height, width in case.shapes])
    centres = torch.cat(
        [
            torch.cartesian_prod(
                (torch.arange(height, dtype=torch.float64) + 0.5) / height,
                (torch.arange(width, dtype=torch.float64) + 0.5) / width,
            ).flip(-1)
            for height, width in case.shapes
        ]
    )
    reference_points = centres[None, :, None].expand(*tokens, len(STRIDES), 2)
    offsets = ((random(*points, 2) * 16).round().clamp(-63, 63) * 2 + 1) / 16
    return Inputs(
        random(*tokens, HEADS, CHANNELS).to(device, case.dtype),
        torch.tensor(case.shapes),
        sizes.cumsum(0) - sizes,
        reference_points.to(device, coordinate_dtype(case.dtype)).contiguous(),
        offsets.to(device, case.dtype),
        random(*points).to(device, case.dtype),
        random(*tokens, HEADS * CHANNELS).to(device, case.dtype),
    )


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
