"""Deformable attention as a dense formula, random inputs for it, and comparisons with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ddep.ops import ms_deform_attn, ms_deform_attn_fused

Shapes = list[tuple[int, int]]

# Norm of the difference over norm, for the output and for each gradient. Half types: rounding the
# result costs 2^-9 (bfloat16) or 2^-12 (float16) at most.
FORWARD = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 3e-3, torch.float16: 4e-4}
BACKWARD = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-3, torch.float16: 4e-4}
DTYPES = list(FORWARD)


def level_starts(shapes: Shapes) -> torch.Tensor:
    sizes = torch.tensor([height * width for height, width in shapes])
    return sizes.cumsum(0) - sizes


@dataclass(frozen=True)
class Inputs:
    """Arguments of either function; ``sampling`` are those after the levels.

    Plain: locations and attention weights. Fused: reference points, offsets and logits.
    """

    value: torch.Tensor
    shapes: Shapes
    sampling: tuple[torch.Tensor, ...]

    @property
    def fused(self) -> bool:
        return len(self.sampling) == 3

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (self.value, *self.sampling)

    @property
    def names(self) -> list[str]:
        if self.fused:
            return ["value", "reference_points", "sampling_offsets", "attention_logits"]
        return ["value", "sampling_locations", "attention_weights"]

    @property
    def arguments(self) -> tuple[torch.Tensor, ...]:
        levels = torch.tensor(self.shapes, dtype=torch.int64).view(-1, 2)
        return (self.value, levels, level_starts(self.shapes), *self.sampling)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Inputs:
        value, *sampling = map(function, self.tensors)
        return replace(self, value=value, sampling=tuple(sampling))

    def pixels(self) -> torch.Tensor:
        """The points' positions (N, Q, M, L, P, 2) in pixels; pixel j has its centre at j."""
        sizes = torch.tensor(self.shapes).flip(-1)[:, None].to(self.value)  # (L, 1, 2): W, H
        if not self.fused:
            return self.sampling[0] * sizes - 0.5
        reference, offsets, _ = self.sampling
        return reference[:, :, None, :, None] * sizes - 0.5 + offsets


def random_inputs(
    shapes: Shapes,
    fused: bool = False,
    batch: int = 2,
    queries: int = 6,
    heads: int = 3,
    channels: int = 4,
    points: int = 2,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    seed: int = 0,
) -> Inputs:
    """Return inputs, many of whose points lie outside the level on all sides.

    Every second query samples at pixel centres, on borders of pixels and of the level, and far
    outside.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*size: int) -> torch.Tensor:
        return torch.rand(size, generator=generator, dtype=torch.float64)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    positions = sum(height * width for height, width in shapes)
    value = normal(batch, positions, heads, channels)
    size = (batch, queries, heads, len(shapes), points)
    sizes = torch.tensor(shapes).flip(-1)[:, None].clamp(min=1).double()  # (L, 1, 2): W, H
    locations = uniform(*size, 2) * 1.6 - 0.3
    pixel = (locations * sizes).floor()
    sides = torch.where(locations < 0.5, -1.0, 1.0)
    special = torch.stack(
        [
            (pixel + 0.5) / sizes,
            pixel / sizes,
            locations.round(),
            0.5 + sides * (0.5 + 0.5 / sizes),  # a whole pixel from the outermost centre
            sides * 1000,
            locations,
        ]
    )
    kind = torch.randint(len(special), locations.shape, generator=generator)
    special = special.gather(0, kind[None])[0]
    locations[:, ::2] = special[:, ::2]
    if fused:
        reference = uniform(batch, queries, len(shapes), 2)
        centres = ((reference * sizes[:, 0]).floor() + 0.5) / sizes[:, 0]
        reference[:, ::2] = centres[:, ::2]
        offsets = (locations - reference[:, :, None, :, None]) * sizes
        sampling = (reference, offsets, 3 * normal(*size))
    else:
        sampling = (locations, uniform(*size))
    return Inputs(value, shapes, sampling).map(lambda tensor: tensor.to(device, dtype))


def apply(inputs: Inputs) -> torch.Tensor:
    """Call the function under test."""
    function = ms_deform_attn_fused if inputs.fused else ms_deform_attn
    return function(*inputs.arguments)


def tent_formula(inputs: Inputs) -> torch.Tensor:
    """Sum every pixel times the tent max(0, 1 - |distance|) in x and in y."""
    weights = inputs.sampling[-1]
    if inputs.fused:
        weights = (weights - weights.detach().amax((3, 4), keepdim=True)).exp()
        weights = weights / weights.sum((3, 4), keepdim=True)
    places, output = inputs.pixels(), 0
    for level, ((h, w), start) in enumerate(
        zip(inputs.shapes, level_starts(inputs.shapes).tolist(), strict=True)
    ):
        x, y = places[..., level, :, 0], places[..., level, :, 1]
        columns = (1 - (x[..., None] - torch.arange(w, device=x.device)).abs()).clamp(min=0)
        rows = (1 - (y[..., None] - torch.arange(h, device=y.device)).abs()).clamp(min=0)
        pixels = inputs.value[:, start : start + h * w].unflatten(1, (h, w))
        sampled = torch.einsum("nqmpx,nyxmd->nqmpyd", columns, pixels)
        sampled = torch.einsum("nqmpy,nqmpyd->nqmpd", rows, sampled)
        output = output + torch.einsum("nqmpd,nqmp->nqmd", sampled, weights[..., level, :])
    return output.flatten(2)


def run(
    function: Callable[[Inputs], torch.Tensor], inputs: Inputs, grad_output: torch.Tensor
) -> list[torch.Tensor]:
    """Return the output and the gradients of value and of the arguments after the levels."""
    inputs = inputs.map(lambda tensor: tensor.detach().requires_grad_())
    output = function(inputs)
    return [output.detach(), *torch.autograd.grad(output, inputs.tensors, grad_output)]


def random_gradient(inputs: Inputs) -> torch.Tensor:
    batch, _, heads, channels = inputs.value.shape
    size = (batch, inputs.sampling[-1].shape[1], heads * channels)
    gradient = torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return gradient.to(inputs.value)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over norm; 0 for nothing and for two zeros."""
    difference = (found.double() - expected).norm().item()
    return difference / expected.norm().item() if difference else 0.0


def check(inputs: Inputs) -> None:
    """Compare the output and the gradients with the formula's, each at its dtype's tolerance.

    Bilinear interpolation has kinks at pixel centres: the slopes to the left and to the right
    differ, and rounding decides which of them an implementation returns. Gradients of such
    coordinates are not compared, nor are those of a reference point with such a point.
    (test_special_values.py tests what is returned there.)
    """
    exact = inputs.map(torch.Tensor.double)
    gradient = random_gradient(inputs)
    found = run(apply, inputs, gradient)
    expected = run(tent_formula, exact, gradient.double())
    places = exact.pixels()
    rounding = 1e-12 if inputs.value.dtype == torch.float64 else 3e-5
    smooth = (places - places.round()).abs() > rounding * (1 + places.abs())
    kept = {
        "sampling_locations": smooth,
        "sampling_offsets": smooth,
        "reference_points": smooth.all(4).all(2),
    }
    for index, name in enumerate(["output", *inputs.names]):
        dtype = inputs.tensors[max(0, index - 1)].dtype
        assert found[index].dtype == dtype, name
        assert found[index].shape == expected[index].shape, name
        if name in kept:
            found[index], expected[index] = (t[index][kept[name]] for t in (found, expected))
        error = relative_error(found[index], expected[index])
        assert error < (BACKWARD if index else FORWARD)[dtype], f"{name}: {error}"
