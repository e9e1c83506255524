"""Both implementations refuse wrong arguments, naming what was found and what was expected."""

from __future__ import annotations

import pytest
import torch

from ddep.ops import ms_deform_attn, ms_deform_attn_fused
from tests.ops.formula import random_inputs

pytestmark = pytest.mark.usefixtures("implementation")

LEVELS = [(3, 5), (2, 4)]
NAMES = {
    False: ["sampling_locations", "attention_weights"],
    True: ["reference_points", "sampling_offsets", "attention_logits"],
}


def arguments(device: str, fused: bool) -> dict[str, torch.Tensor]:
    inputs = random_inputs(LEVELS, fused, dtype=torch.float32, device=device)
    names = ["value", "spatial_shapes", "level_start_index", *NAMES[fused]]
    return dict(zip(names, inputs.arguments, strict=True))


def refused(arguments: dict[str, torch.Tensor], fused: bool) -> str:
    """Return the message, which is one line."""
    function = ms_deform_attn_fused if fused else ms_deform_attn
    with pytest.raises(ValueError) as error:
        function(**arguments)
    message, *trace = str(error.value).splitlines()
    assert not any(trace[:1])
    assert message.startswith("ms_deform_attn: ")
    return message


PLAIN, FUSED = [False], [True]
BOTH = [False, True]
WRONG_SHAPES = [
    (BOTH, "value", (2, 23, 12), "value has 3 dimensions; expected 4: (N, S, M, D)"),
    (PLAIN, "sampling_locations", (2, 6, 3, 2, 4), "has 5 dimensions; expected 6: (N, Q, M, L, P,"),
    (PLAIN, "sampling_locations", (1, 6, 3, 2, 2, 2), "has shape [1, 6, 3, 2, 2, 2]; expected (N,"),
    (PLAIN, "sampling_locations", (2, 6, 4, 2, 2, 2), "(N, Q, M, L, P, 2) = [2, 6, 3, 2, 2, 2]"),
    (PLAIN, "sampling_locations", (2, 6, 3, 2, 2, 3), "(N, Q, M, L, P, 2) = [2, 6, 3, 2, 2, 2]"),
    (FUSED, "sampling_offsets", (2, 6, 3, 2, 4), "has 5 dimensions; expected 6: (N, Q, M, L, P, 2"),
    (FUSED, "sampling_offsets", (2, 6, 1, 2, 2, 2), "(N, Q, M, L, P, 2) = [2, 6, 3, 2, 2, 2]"),
    (PLAIN, "attention_weights", (2, 6, 3, 2, 1), "expected (N, Q, M, L, P) = [2, 6, 3, 2, 2]"),
    (PLAIN, "attention_weights", (2, 6, 3, 4), "expected (N, Q, M, L, P) = [2, 6, 3, 2, 2]"),
    (FUSED, "attention_logits", (2, 5, 3, 2, 2), "expected (N, Q, M, L, P) = [2, 6, 3, 2, 2]"),
    (FUSED, "reference_points", (2, 6, 1, 2), "expected (N, Q, L, 2) = [2, 6, 2, 2]"),
    (FUSED, "reference_points", (2, 6, 2, 4), "has shape [2, 6, 2, 4]; expected (N, Q, L, 2)"),
    (BOTH, "spatial_shapes", (3, 2), "has shape [3, 2]; expected (L, 2) = [2, 2]"),
    (BOTH, "spatial_shapes", (4,), "has shape [4]; expected (L, 2) = [2, 2]"),
    (BOTH, "level_start_index", (1,), "has shape [1]; expected (L,) = [2]"),
    (BOTH, "level_start_index", (2, 1), "has shape [2, 1]; expected (L,) = [2]"),
]


@pytest.mark.parametrize(("forms", "name", "shape", "expected"), WRONG_SHAPES)
def test_wrong_shape(device, forms, name, shape, expected):
    for fused in forms:
        wrong = arguments(device, fused)
        wrong[name] = wrong[name].new_zeros(shape)
        message = refused(wrong, fused)
        assert name in message and expected in message, message


WRONG_DTYPES = [
    (BOTH, "value", torch.int64, "; expected a floating dtype"),
    (PLAIN, "sampling_locations", torch.int32, "; expected a floating dtype"),
    (PLAIN, "attention_weights", torch.bool, "; expected a floating dtype"),
    (FUSED, "sampling_offsets", torch.int64, "; expected a floating dtype"),
    (FUSED, "attention_logits", torch.complex64, "; expected a floating dtype"),
    (FUSED, "reference_points", torch.uint8, "; expected a floating dtype"),
    (PLAIN, "sampling_locations", torch.float64, "; float64 does not mix with other dtypes"),
    (PLAIN, "attention_weights", torch.float64, "; float64 does not mix with other dtypes"),
    (FUSED, "sampling_offsets", torch.float64, "; float64 does not mix with other dtypes"),
    (FUSED, "attention_logits", torch.float64, "; float64 does not mix with other dtypes"),
    (FUSED, "reference_points", torch.float64, "; float64 does not mix with other dtypes"),
    (BOTH, "value", torch.float64, "; float64 does not mix with other dtypes"),
    (BOTH, "spatial_shapes", torch.int32, "; expected int64"),
    (BOTH, "level_start_index", torch.float32, "; expected int64"),
]


@pytest.mark.parametrize(("forms", "name", "dtype", "expected"), WRONG_DTYPES)
def test_wrong_dtype(device, forms, name, dtype, expected):
    for fused in forms:
        wrong = arguments(device, fused)
        wrong[name] = wrong[name].to(dtype)
        message = refused(wrong, fused)
        assert name in message and expected in message, message


WRONG_LEVELS = [
    ([(3, 5), (2, 5)], [0, 15], "level 1 is 2 x 5 in spatial_shapes and begins at 15"),
    (
        [(3, 5), (2, 3)],
        [0, 15],
        "value has S = 23; expected the sum of H * W over spatial_shapes = 21",
    ),
    ([(-3, -5), (2, 4)], [0, 15], "level 0 is -3 x -5"),
    ([(3, 5), (2, 4)], [0, -1], "begins at -1 in level_start_index"),
    (
        [(3, 5), (2, 4)],
        [0, 16],
        "begins at 16 in level_start_index; that does not fit into value's S",
    ),
    ([(3, 5), (2, 4)], [0, 2**62], f"begins at {2**62} in level_start_index"),
    ([(2**62, 4), (2, 4)], [0, 15], f"level 0 is {2**62} x 4"),
    ([(2**33, 2**33), (2, 4)], [0, 15], f"level 0 is {2**33} x {2**33}"),
]


@pytest.mark.parametrize("fused", BOTH, ids=["plain", "fused"])
@pytest.mark.parametrize(("shapes", "starts", "expected"), WRONG_LEVELS)
def test_levels_do_not_fit(device, fused, shapes, starts, expected):
    """Checked on the host, where the sizes are: nothing may be read beyond value."""
    wrong = arguments(device, fused)
    wrong["spatial_shapes"] = torch.tensor(shapes)
    wrong["level_start_index"] = torch.tensor(starts)
    message = refused(wrong, fused)
    assert expected in message, message


def test_more_pixels_than_32_bits_can_count(device, implementation):
    if (device, implementation) != ("cpu", "compiled"):
        pytest.skip("only the CPU kernels count in 32 bits")
    wrong = {
        "value": torch.empty(1, 2**30, 1, 0),  # no channels, so no memory
        "spatial_shapes": torch.tensor([[2**15, 2**15]]),
        "level_start_index": torch.tensor([0]),
        "sampling_locations": torch.zeros(1, 1, 1, 1, 1, 2),
        "attention_weights": torch.zeros(1, 1, 1, 1, 1),
    }
    message = refused(wrong, False)
    assert f"value has S = {2**30}; expected fewer than 2^30 on the CPU" in message


@pytest.mark.parametrize("fused", BOTH, ids=["plain", "fused"])
@pytest.mark.parametrize("other", ["meta", "cpu"])
def test_other_device(device, fused, other):
    """All must be on value's device, except the levels' sizes, which may be on the host."""
    if other == device:
        pytest.skip("needs a second device")
    for name in arguments(device, fused):
        if name == "value" or (other == "cpu" and name in ("spatial_shapes", "level_start_index")):
            continue
        wrong = arguments(device, fused)
        wrong[name] = wrong[name].to(other)
        message = refused(wrong, fused)
        assert f" is on {other}" in message and f"value on {device}" in message, message


@pytest.mark.parametrize(
    ("gradient", "expected"),
    [
        (torch.zeros(2, 6, 11), "has shape [2, 6, 11]; expected (N, Q, M * D) = [2, 6, 12]"),
        (torch.zeros(2, 6, 12, dtype=torch.int64), "is Long; expected a floating dtype"),
        (torch.zeros(2, 6, 12).double(), "is Double and value Float; float64 does not mix"),
    ],
)
@pytest.mark.parametrize("fused", BOTH, ids=["plain", "fused"])
def test_wrong_gradient(device, implementation, fused, gradient, expected):
    if implementation == "reference":
        pytest.skip("PyTorch's own operators have their own checks")
    namespace = torch.ops.ddep
    backward = (
        namespace.ms_deform_attn_fused_backward if fused else namespace.ms_deform_attn_backward
    )
    with pytest.raises(ValueError) as error:
        backward(gradient.to(device), *arguments(device, fused).values())
    assert f"ms_deform_attn: grad_output {expected}" in str(error.value)
