"""The CUDA kernels, compiled for the CPU and run by an emulation of CUDA, without a GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from tests.ops.native_build import build_emulation

pytestmark = pytest.mark.native

# Odd sizes, and powers of two, where fractions of the size hit borders and pixel centres exactly.
LEVELS = ((5, 7), (4, 8), (2, 4), (1, 3))

# (forward, gradients): norm of the difference over norm
TOLERANCE = {
    torch.float64: (1e-14, 1e-13),
    torch.float32: (1e-6, 1e-5),
    torch.float16: (1e-2, 1e-2),
    torch.bfloat16: (1e-2, 1e-2),
}


class _Arguments(ctypes.Structure):
    _fields_ = (
        [(name, ctypes.c_int64) for name in ["images", "tokens", "heads", "channels", "queries"]]
        + [(name, ctypes.c_int64) for name in ("levels", "points")]
        + [(name, ctypes.c_void_p) for name in ("shapes", "starts")]
        + [(name, ctypes.c_void_p) for name in ("value", "reference", "places", "weights")]
        + [(name, ctypes.c_char_p) for name in ("value_type", "sampling_type")]
        + [(name, ctypes.c_bool) for name in ("levels_on_device", "reversed")]
    )


class _Gradients(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_void_p)
        for name in ("value", "reference", "places", "weights", "attention", "exact_places")
    ]


class Inputs(NamedTuple):
    """Fused: places are offsets from ``reference`` in pixels, and weights are logits."""

    value: torch.Tensor
    shapes: torch.Tensor
    starts: torch.Tensor
    reference: torch.Tensor | None
    places: torch.Tensor
    weights: torch.Tensor


def build(folder: Path, architecture: int) -> ctypes.CDLL:
    loaded = build_emulation(folder, "driver.cpp", architecture)
    for function in (loaded.emulate_forward, loaded.emulate_backward):
        function.restype = ctypes.c_char_p
    return loaded


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> ctypes.CDLL:
    return build(tmp_path_factory.mktemp("sm_90"), 900)


@pytest.fixture(scope="module")
def kernels_sm_80(tmp_path_factory) -> ctypes.CDLL:
    return build(tmp_path_factory.mktemp("sm_80"), 800)


def make_inputs(
    channels: int,
    *,
    fused: bool,
    dtype: torch.dtype,
    sampling_dtype: torch.dtype | None = None,
    levels: tuple[tuple[int, int], ...] = LEVELS,
    points: int = 3,
    images: int = 2,
    queries: int = 11,
    heads: int = 3,
    seed: int = 0,
) -> Inputs:
    """Random inputs; about every other sample lies outside, on a border or at a pixel centre.

    If a size is not a power of two, a place at a pixel centre is rounded to either side, and the
    gradients on the two sides differ. So such places occur only where the formula is exact.
    """
    generator = torch.Generator().manual_seed(seed)
    sampling_dtype = sampling_dtype or dtype
    real = torch.float64 if dtype == torch.float64 else torch.float32
    shapes = torch.tensor(levels)
    areas = shapes.prod(-1)
    starts = areas.cumsum(0) - areas
    value = torch.randn(images, int(areas.sum()), heads, channels, generator=generator)
    samples = (images, queries, heads, len(levels), points)
    sizes = shapes.flip(-1)[:, None]
    powers_of_two = (shapes & (shapes - 1) == 0).all(-1)
    pixels = torch.rand(*samples, 2, generator=generator, dtype=torch.float64) * 1.5 - 0.25
    pixels = pixels * sizes
    half_pixels = (2 * pixels).round() / 2  # half a pixel outside among them
    centres = torch.minimum(half_pixels.clamp(min=0.5), sizes - 0.5)
    half_pixels = half_pixels.where(powers_of_two[:, None, None], centres)
    on_grid = torch.rand(samples, generator=generator) < 0.3
    if fused or dtype == torch.float64:
        on_grid &= powers_of_two[:, None]
    pixels = torch.where(on_grid[..., None], half_pixels, pixels)
    weights = torch.randn(samples, generator=generator)
    if fused:
        reference = torch.rand(images, queries, len(levels), 2, generator=generator) * 1.2 - 0.1
        on_grid = (torch.rand(images, queries, 1, generator=generator) < 0.5) & powers_of_two
        sizes = sizes[:, 0]
        centres = (2 * reference * sizes).round() / (2 * sizes)
        reference = torch.where(on_grid[..., None], centres, reference).to(real)
        places = pixels - (0.5 * sizes)[:, None]
    else:
        reference, places = None, pixels / sizes
    return Inputs(
        value.to(dtype),
        shapes,
        starts,
        reference,
        places.to(sampling_dtype),
        weights.to(sampling_dtype),
    )


def run_forward(
    kernels: ctypes.CDLL, inputs: Inputs, *, on_device: bool = False, reversed_: bool = False
) -> torch.Tensor:
    images, _, heads, channels = inputs.value.shape
    output = torch.full(
        (images, inputs.places.shape[1], heads * channels), float("nan"), dtype=inputs.value.dtype
    )
    arguments = _arguments_of(inputs, on_device, reversed_)
    error = kernels.emulate_forward(ctypes.byref(arguments), ctypes.c_void_p(output.data_ptr()))
    assert error is None, error
    return output


def run_backward(
    kernels: ctypes.CDLL,
    grad_output: torch.Tensor,
    inputs: Inputs,
    *,
    on_device: bool = False,
    reversed_: bool = False,
) -> Inputs:
    real = torch.float64 if inputs.value.dtype == torch.float64 else torch.float32
    nan = float("nan")
    fused = inputs.reference is not None
    value = torch.zeros_like(inputs.value, dtype=real)
    reference = torch.full_like(inputs.reference, nan) if fused else None
    places = torch.full_like(inputs.places, nan)
    weights = torch.full_like(inputs.weights, nan)
    attention = torch.full_like(inputs.weights, nan, dtype=real)
    exact_places = None
    if fused and inputs.places.dtype != real:
        exact_places = torch.full_like(inputs.places, nan, dtype=real)
    outputs = (value, reference, places, weights, attention, exact_places)
    pointers = [_pointer(tensor) for tensor in outputs]
    arguments = _arguments_of(inputs, on_device, reversed_)
    error = kernels.emulate_backward(
        ctypes.byref(arguments),
        ctypes.c_void_p(grad_output.data_ptr()),
        ctypes.byref(_Gradients(*pointers)),
    )
    assert error is None, error
    return inputs._replace(value=value, reference=reference, places=places, weights=weights)


def _pointer(tensor: torch.Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _arguments_of(inputs: Inputs, on_device: bool, reversed_: bool) -> _Arguments:
    def type_of(tensor: torch.Tensor) -> bytes:
        return str(tensor.dtype).removeprefix("torch.").encode()

    images, tokens, heads, channels = inputs.value.shape
    _, queries, _, levels, points, _ = inputs.places.shape
    tensors = (inputs.shapes, inputs.starts, inputs.value)
    return _Arguments(
        *(images, tokens, heads, channels, queries, levels, points),
        *(_pointer(t) for t in (*tensors, inputs.reference, inputs.places, inputs.weights)),
        *(type_of(t) for t in (inputs.value, inputs.places)),
        on_device,
        reversed_,
    )


def formula(inputs: Inputs) -> torch.Tensor:
    """Deformable DETR (arXiv 2010.04159), equation 3, in float64 and pixel by pixel.

    Samples a whole pixel or more outside contribute nothing, and neither do pixels outside.
    """
    value, _, _, reference, places, weights = inputs
    images, _, heads, channels = value.shape
    sizes = inputs.shapes.flip(-1)[:, None].double()
    if reference is not None:
        places = reference[:, :, None, :, None] * sizes + places
        weights = weights.flatten(3).softmax(-1).view(weights.shape)
    else:
        places = places * sizes
    output = value.new_zeros(images, places.shape[1], heads, channels)
    zero = value.new_zeros(())
    # (N, 1, 1, 1) and (M, 1), which pick with tokens (N, Q, M, P)
    image, head = torch.arange(images)[:, None, None, None], torch.arange(heads)[:, None]
    for level, ((height, width), start) in enumerate(
        zip(inputs.shapes.tolist(), inputs.starts.tolist(), strict=True)
    ):
        x, y = (places[:, :, :, level] - 0.5).unbind(-1)  # (N, Q, M, P)
        near = (x >= -1) & (x < width) & (y >= -1) & (y < height)
        x, y = x.where(near, zero), y.where(near, zero)
        left, top = x.detach().floor(), y.detach().floor()
        for row, y_share in ((top, 1 - (y - top)), (top + 1, y - top)):
            for column, x_share in ((left, 1 - (x - left)), (left + 1, x - left)):
                inside = near & (row >= 0) & (row < height) & (column >= 0) & (column < width)
                token = (start + row * width + column).where(inside, zero).long()
                picked = value[image, token, head].where(inside[..., None], zero)
                share = (y_share * x_share * weights[:, :, :, level]).where(inside, zero)
                output = output + (picked * share[..., None]).sum(3)
    return output.flatten(2)


def expected(inputs: Inputs, grad_output: torch.Tensor | None = None) -> tuple:
    """The formula's output and, with ``grad_output``, the gradients as another Inputs."""
    exact = inputs._replace(
        **{
            name: getattr(inputs, name).double().requires_grad_()
            for name in ("value", "reference", "places", "weights")
            if getattr(inputs, name) is not None
        }
    )
    output = formula(exact)
    if grad_output is None:
        return output.detach(), None
    output.backward(grad_output.double())
    gradients = exact._replace(
        value=exact.value.grad,
        reference=None if exact.reference is None else exact.reference.grad,
        places=exact.places.grad,
        weights=exact.weights.grad,
    )
    return output.detach(), gradients


def relative_error(actual: torch.Tensor, exact: torch.Tensor) -> float:
    difference, size = (actual.double() - exact).norm(), exact.norm()
    return float(difference / size if size > 0 else difference)


def check(kernels: ctypes.CDLL, inputs: Inputs, **options: bool) -> None:
    """Compare output and gradients with the formula's."""
    output = run_forward(kernels, inputs, **options)
    generator = torch.Generator().manual_seed(1)
    grad_output = torch.randn(output.shape, generator=generator).to(output.dtype)
    gradients = run_backward(kernels, grad_output, inputs, **options)
    exact_output, exact_gradients = expected(inputs, grad_output)
    forward, backward = TOLERANCE[inputs.value.dtype]
    assert relative_error(output, exact_output) < forward
    for name in ("value", "reference", "places", "weights"):
        actual, exact = getattr(gradients, name), getattr(exact_gradients, name)
        if exact is not None:
            assert relative_error(actual, exact) < backward, name


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3, 8, 16, 17, 32, 64, 71])
def test_matches_formula(kernels, channels, dtype, fused) -> None:
    check(kernels, make_inputs(channels, fused=fused, dtype=dtype))


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("sampling_dtype", [None, torch.float32], ids=["all_half", "value_half"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [3, 16, 24, 32, 64])
def test_half_types_match_formula(kernels, channels, dtype, sampling_dtype, fused) -> None:
    check(
        kernels,
        make_inputs(channels, fused=fused, dtype=dtype, sampling_dtype=sampling_dtype, queries=5),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_do_not_round_the_gradient_of_reference_points(kernels, dtype) -> None:
    """They are float32, and sums of gradients that other outputs round."""
    inputs = make_inputs(32, fused=True, dtype=dtype, points=8)
    size = (inputs.value.shape[0], inputs.places.shape[1], 3 * 32)
    gradient = torch.randn(size, generator=torch.Generator().manual_seed(1)).to(dtype)
    _, exact = expected(inputs, gradient)
    found = run_backward(kernels, gradient, inputs)
    assert relative_error(found.reference, exact.reference) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [8, 17, 32])
def test_atomic_operations_of_older_architectures(kernels_sm_80, channels, dtype) -> None:
    check(kernels_sm_80, make_inputs(channels, fused=True, dtype=dtype))


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize(
    ("levels", "points"),
    [(((6, 5),), 1), (((6, 5),), 8), (((1, 1),), 4), (LEVELS, 11)],
    ids=["one_point", "one_level", "one_pixel", "many_points"],
)
@pytest.mark.parametrize("channels", [5, 32])
def test_numbers_of_levels_and_points(kernels, channels, levels, points, fused) -> None:
    dtype = torch.float32
    check(kernels, make_inputs(channels, fused=fused, dtype=dtype, levels=levels, points=points))


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("heads", [1, 8])
def test_several_blocks(kernels, heads, fused) -> None:
    """More queries than a block takes, and not a multiple of that."""
    check(kernels, make_inputs(16, fused=fused, dtype=torch.float32, queries=67, heads=heads))


def test_precision_on_large_levels(kernels) -> None:
    """Rounding places to float32 here would cost 1e-5 of a pixel."""
    levels = ((250, 300),)
    inputs = make_inputs(1, fused=False, dtype=torch.float32, levels=levels, heads=1, queries=300)
    check(kernels, inputs)


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("channels", [7, 32])
def test_order_of_lanes_has_no_effect(kernels, channels, fused) -> None:
    """Between exchanges the lanes of a warp run in any order."""
    check(kernels, make_inputs(channels, fused=fused, dtype=torch.float32), reversed_=True)


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_levels_on_the_device(kernels, fused) -> None:
    levels = LEVELS * 5  # more than are passed with a launch
    inputs = make_inputs(16, fused=fused, dtype=torch.float32, levels=levels, points=1)
    check(kernels, inputs, on_device=True)


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
@pytest.mark.parametrize(
    ("index", "shape", "start"),
    [
        (1, (4, 8), 1000),
        (1, (4, 9), 47),
        (1, (-1, -32), 35),
        (1, (2**62 + 4, 4), 35),
        (1, (4, 2**62 + 4), 35),
        (1, (4, 8), -1),
        (1, (4, 8), 2**63 - 1),
    ],
)
def test_level_outside_value_is_empty(kernels, index, shape, start, on_device) -> None:
    inputs = make_inputs(16, fused=False, dtype=torch.float32)
    shapes, starts = inputs.shapes.clone(), inputs.starts.clone()
    shapes[index], starts[index] = torch.tensor(shape), start
    wrong = inputs._replace(shapes=shapes, starts=starts)
    weights = inputs.weights.clone()
    weights[:, :, :, index] = 0
    exact, _ = expected(inputs._replace(weights=weights))
    assert relative_error(run_forward(kernels, wrong, on_device=on_device), exact) < 1e-6
    grad_output = torch.ones_like(exact, dtype=torch.float32)
    gradients = run_backward(kernels, grad_output, wrong, on_device=on_device)
    assert (gradients.places[:, :, :, index] == 0).all()
    assert (gradients.weights[:, :, :, index] == 0).all()
    assert gradients.value.isfinite().all()


@pytest.mark.parametrize("channels", [5, 32])
@pytest.mark.parametrize("x", [float("nan"), float("inf"), -float("inf"), 1e30, -3.0, 2.5])
def test_samples_outside_touch_nothing(kernels, x, channels) -> None:
    inputs = make_inputs(channels, fused=False, dtype=torch.float32)
    inputs.places[..., 0] = x
    inputs.value.fill_(float("nan"))
    output = run_forward(kernels, inputs)
    assert (output == 0).all()
    gradients = run_backward(kernels, torch.ones_like(output), inputs)
    for gradient in (gradients.value, gradients.places, gradients.weights):
        assert (gradient == 0).all()


@pytest.mark.parametrize("channels", [5, 32])
@pytest.mark.parametrize("far", [False, True])
def test_all_masked_is_nan(kernels, far, channels) -> None:
    """Like a softmax in PyTorch, wherever the samples are; other queries do not change."""
    inputs = make_inputs(channels, fused=True, dtype=torch.float32)
    if far:
        inputs.places[0, 3] = -1e4
    right = run_forward(kernels, inputs).unflatten(2, (3, channels))
    inputs.weights[0, 3, 1] = -float("inf")
    output = run_forward(kernels, inputs).unflatten(2, (3, channels))
    assert output[0, 3, 1].isnan().all()
    output[0, 3, 1] = right[0, 3, 1]
    assert torch.equal(output, right)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("channels", [5, 32])
def test_pixels_beyond_the_border_contribute_nothing(kernels, channels, bad) -> None:
    """A corner pixel sampled from outside, where all other pixels are not numbers."""
    inputs = make_inputs(
        channels, fused=False, dtype=torch.float32, levels=((4, 8),), points=4, images=1
    )
    # a quarter pixel outside the centres of the four corner pixels
    x = (torch.tensor([0.0, 7.0, 0.0, 7.0]) + torch.tensor([-1, 1, -1, 1]) / 4 + 0.5) / 8
    y = (torch.tensor([0.0, 0.0, 3.0, 3.0]) + torch.tensor([-1, -1, 1, 1]) / 4 + 0.5) / 4
    inputs.places[...] = torch.stack([x, y], -1)
    corners = torch.tensor([0, 7, 24, 31])
    inputs.value[:, [i for i in range(32) if i not in corners]] = bad
    output = run_forward(kernels, inputs)
    # (1, Q, M, P) and (1, P, M, D): three quarters of each corner along either axis
    exact = torch.einsum("nqmlp,npmd->nqmd", inputs.weights, inputs.value[:, corners]) * 0.75**2
    assert relative_error(output, exact.flatten(2).double()) < 1e-6
    gradients = run_backward(kernels, torch.ones_like(output), inputs)
    assert gradients.places.isfinite().all() and gradients.weights.isfinite().all()


def test_logits_of_any_size(kernels) -> None:
    inputs = make_inputs(16, fused=True, dtype=torch.float32)
    inputs.weights.mul_(1000)
    check(kernels, inputs)
