"""Costs of matching masks, compared with formulas in float64 and with Hugging Face's functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.mask2former import modeling_mask2former as mask2former
from transformers.models.maskformer import modeling_maskformer as maskformer

from ddep.ops import dense_mask_costs, point_mask_costs

Costs = tuple[Tensor, Tensor]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def random_logits(*shape: int, layers: int = 2, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [4 * torch.randn(shape, generator=generator).to(dtype) for _ in range(layers)]


def random_masks(*shape: int, dtype: torch.dtype = torch.bool) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(shape, generator=generator) > 0.6).to(dtype)


def random_points(images: int, count: int) -> Tensor:
    """Some outside, and some on borders, on pixels' edges and centres."""
    generator = torch.Generator().manual_seed(2)
    points = 1.3 * torch.rand(images, count, 2, generator=generator) - 0.15
    special = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [-9.0, 0.5], [0.5, 1e30]])
    points[:, : len(special)] = special[:count]
    return points


def to(device: str, *arguments: Tensor | list[Tensor]) -> list[Tensor | list[Tensor]]:
    return [a.to(device) if isinstance(a, Tensor) else [t.to(device) for t in a] for a in arguments]


def sample(maps: Tensor, points: Tensor) -> Tensor:
    grid = (2 * points.double() - 1)[None, :, None]
    return F.grid_sample(maps.double()[None], grid, align_corners=False)[0, :, :, 0]


def nearest(masks: Tensor, height: int, width: int) -> Tensor:
    rows = torch.arange(height) * masks.shape[1] // height
    columns = torch.arange(width) * masks.shape[2] // width
    return masks[:, rows[:, None], columns].flatten(1).double()


def dice(logits: Tensor, masks: Tensor) -> Tensor:
    p, m = logits.sigmoid()[:, None], masks[None]
    return 1 - (2 * (p * m).sum(-1) + 1) / (p.sum(-1) + m.sum(-1) + 1)


def cross_entropy(logits: Tensor, masks: Tensor) -> Tensor:
    x, m = logits[:, None], masks[None]
    return (m * F.softplus(-x) + (1 - m) * F.softplus(x)).mean(-1)


def focal(logits: Tensor, masks: Tensor) -> Tensor:
    """RetinaNet's equation 5; the logarithms of p and 1 - p are from the logits."""
    x, m = logits[:, None], masks[None]
    p = x.sigmoid()
    ones = -0.25 * (1 - p) ** 2 * F.logsigmoid(x)
    zeros = -0.75 * p**2 * F.logsigmoid(-x)
    return (m * ones + (1 - m) * zeros).mean(-1)


def by_definition(
    mask_logits: Sequence[Tensor],
    masks: Tensor,
    num_targets: Sequence[int],
    points: Tensor | None = None,
) -> Costs:
    """In float64, image by image."""
    cost, dice_loss = [], []
    for layer in mask_logits:
        cost_of_layer, dice_of_layer = [], []
        for image, targets in enumerate(masks.split(list(num_targets))):
            if points is None:
                x = layer[image].double().flatten(1)
                m = nearest(targets, *layer.shape[-2:])
            else:
                x, m = sample(layer[image], points[image]), sample(targets, points[image])
            cost_of_layer.append((focal if points is None else cross_entropy)(x, m))
            dice_of_layer.append(dice(x, m))
        cost.append(torch.cat(cost_of_layer, -1))
        dice_loss.append(torch.cat(dice_of_layer, -1))
    return torch.stack(cost), torch.stack(dice_loss)


def assert_close(found: Costs, expected: Costs, rtol: float, atol: float = 0) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu().double(), other, rtol=rtol, atol=atol)


# Tolerances: float32 rounds places to some 1e-6 of a pixel in the reference.
TOLERANCES = {"compiled": 1e-6, "reference": 2e-5}


@pytest.mark.parametrize(
    ("size", "queries", "num_targets", "num_points"),
    [
        ((6, 9), 7, [4, 0, 3], 60),
        ((1, 1), 1, [1], 1),
        ((1, 5), 8, [5, 1], 257),
        ((16, 16), 17, [2, 6], 1000),
        ((33, 7), 3, [0, 0], 5),
    ],
)
def test_point_costs_against_the_formula(
    device: str,
    implementation: str,
    size: tuple[int, int],
    queries: int,
    num_targets: list[int],
    num_points: int,
) -> None:
    logits = random_logits(len(num_targets), queries, *size, layers=3)
    masks = random_masks(sum(num_targets), 24, 35)
    points = random_points(len(num_targets), num_points)
    expected = by_definition(logits, masks, num_targets, points)
    logits_there, masks_there, points_there = to(device, logits, masks, points)
    found = point_mask_costs(logits_there, masks_there, num_targets, points_there)
    assert found[0].dtype == found[1].dtype == torch.float32
    tolerance = TOLERANCES[implementation]
    assert_close(found, expected, rtol=tolerance, atol=tolerance)
    found = point_mask_costs(
        [layer.double() for layer in logits_there], masks_there, num_targets, points_there
    )
    assert found[0].dtype == found[1].dtype == torch.float64
    assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("size", "masks_size", "queries", "num_targets"),
    [
        ((6, 9), (24, 36), 7, [4, 0, 3]),
        ((6, 9), (25, 33), 8, [1, 5]),
        ((1, 1), (5, 5), 1, [1]),
        ((20, 30), (20, 30), 17, [2, 6]),
        ((11, 13), (7, 30), 3, [3]),
        ((3, 4), (9, 9), 3, [0, 0]),
    ],
)
def test_dense_costs_against_the_formula(
    device: str,
    implementation: str,
    size: tuple[int, int],
    masks_size: tuple[int, int],
    queries: int,
    num_targets: list[int],
) -> None:
    logits = random_logits(len(num_targets), queries, *size, layers=3)
    masks = random_masks(sum(num_targets), *masks_size)
    expected = by_definition(logits, masks, num_targets)
    logits_there, masks_there = to(device, logits, masks)
    found = dense_mask_costs(logits_there, masks_there, num_targets)
    assert found[0].dtype == found[1].dtype == torch.float32
    assert_close(found, expected, rtol=2e-6, atol=2e-7)
    found = dense_mask_costs([layer.double() for layer in logits_there], masks_there, num_targets)
    assert found[0].dtype == found[1].dtype == torch.float64
    assert_close(found, expected, rtol=1e-12)


def test_against_hugging_face(device: str, implementation: str) -> None:
    """At the centres of all pixels, interpolation changes nothing."""
    logits, masks = random_logits(1, 6, 8, 8), random_masks(5, 8, 8)
    centres = (torch.arange(8) + 0.5) / 8
    points = torch.cartesian_prod(centres, centres).flip(-1)[None]
    logits_there, masks_there, points_there = to(device, logits, masks, points)
    found = point_mask_costs(logits_there, masks_there, [5], points_there)
    found_dense = dense_mask_costs(logits_there, masks_there, [5])
    m = masks.flatten(1).float()
    for layer, of_layer in enumerate(logits):
        x = of_layer[0].flatten(1)
        for costs, expected in [
            (found[0], mask2former.pair_wise_sigmoid_cross_entropy_loss(x, m)),
            (found[1], mask2former.pair_wise_dice_loss(x, m)),
            (found_dense[0], maskformer.pair_wise_sigmoid_focal_loss(x, m)),
            (found_dense[1], maskformer.pair_wise_dice_loss(x, m)),
        ]:
            torch.testing.assert_close(costs[layer].cpu(), expected, atol=1e-6, rtol=1e-5)


def both(
    logits: list[Tensor], masks: Tensor, num_targets: list[int], points: Tensor
) -> list[Tensor]:
    return [
        *point_mask_costs(logits, masks, num_targets, points),
        *dense_mask_costs(logits, masks, num_targets),
    ]


def test_confident_predictions_have_precise_costs(device: str, compiled: str) -> None:
    """Near 0, where the sums of large terms would cancel."""
    masks = random_masks(2, 16, 16)
    logits = [size * (2 * masks[None].float() - 1) for size in (3.0, 10.0, 30.0)]
    centres = (torch.arange(16) + 0.5) / 16
    points = torch.cartesian_prod(centres, centres)[None]
    expected = [*by_definition(logits, masks, [2], points), *by_definition(logits, masks, [2])]
    found = both(*to(device, logits, masks), [2], *to(device, points))
    for one, other in zip(found[::2], expected[::2], strict=True):
        torch.testing.assert_close(one.cpu().double(), other, rtol=1e-5, atol=1e-35)


@pytest.mark.parametrize("dtype", DTYPES[2:])
def test_half_types_are_computed_in_float32(
    device: str, implementation: str, dtype: torch.dtype
) -> None:
    logits, masks, points = to(
        device,
        random_logits(2, 5, 6, 9, dtype=dtype),
        random_masks(4, 12, 12),
        random_points(2, 50),
    )
    wide = [layer.float() for layer in logits]
    found = both(logits, masks, [3, 1], points)
    for one, other in zip(found, both(wide, masks, [3, 1], points), strict=True):
        assert torch.equal(one, other)
    with torch.autocast(device, torch.bfloat16):
        found = both(wide, masks, [3, 1], points)
    for one, other in zip(found, both(wide, masks, [3, 1], points), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


def test_uint8_and_layouts(device: str, implementation: str) -> None:
    logits, masks, points = to(
        device, random_logits(2, 5, 6, 9), random_masks(4, 12, 15), random_points(2, 50)
    )
    expected = both(logits, masks, [3, 1], points)
    strided = [layer.transpose(2, 3).contiguous().transpose(2, 3) for layer in logits]
    wide = torch.stack(logits, 1)  # (B, L, Q, h, w): layers are views of one tensor
    for others, of_masks, of_points in [
        (logits, masks.byte(), points.double()),
        (strided, masks.transpose(1, 2).contiguous().transpose(1, 2), points),
        (list(wide.unbind(1)), masks.byte(), points.flip(-1).contiguous().flip(-1)),
    ]:
        found = both(others, of_masks, [3, 1], of_points)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite(device: str, implementation: str, value: float) -> None:
    """They show in the costs of their query, and only there."""
    logits = random_logits(2, 9, 6, 9)
    masks, points = random_masks(4, 12, 12), random_points(2, 400)
    logits, masks, points = to(device, logits, masks, points)
    expected = both(logits, masks, [3, 1], points)
    logits[1][0, 4, 2, 3] = value
    for one, other in zip(both(logits, masks, [3, 1], points), expected, strict=True):
        bad = torch.zeros(2, 9, 4, dtype=torch.bool, device=device)
        bad[1, 4, :3] = True
        assert torch.equal(one[~bad], other[~bad])
        if value != value:
            assert not one[bad].isfinite().any()
    # An infinite logit has a sigmoid; its cross entropy and focal loss are infinite or NaN.
    for cost in both(logits, masks, [3, 1], points)[::2]:
        assert not cost[1, 4, :3].isfinite().any()


def test_points_outside_see_zeros(device: str, implementation: str) -> None:
    logits, masks = to(device, [torch.full((1, 1, 3, 4), 50.0)], random_masks(1, 5, 5) | True)
    points = torch.tensor([[[-0.2, 0.5], [0.5, 1.4], [7.0, 1e9], [-1e30, 0.1]]], device=device)
    cross_entropy, dice = point_mask_costs(logits, masks, [1], points)
    assert cross_entropy.item() == pytest.approx(torch.tensor(2.0).log().item(), rel=1e-6)
    assert dice.item() == pytest.approx(1 - 1 / 3, rel=1e-6)


def test_points_that_are_not_finite_count_as_outside(device: str, compiled: str) -> None:
    logits, masks, points = to(
        device, random_logits(1, 3, 6, 9), random_masks(2, 12, 12), random_points(1, 50)
    )
    outside = points.clone()
    outside[0, 7:11] = -5
    points[0, 7:11, 0] = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.5])
    points[0, 10, 1] = float("nan")
    found = point_mask_costs(logits, masks, [2], points)
    for one, other in zip(found, point_mask_costs(logits, masks, [2], outside), strict=True):
        assert torch.equal(one, other)


def test_bits_do_not_depend_on_threads(compiled_on_cpu: str) -> None:
    logits, masks, points = (
        random_logits(2, 30, 16, 16),
        random_masks(9, 32, 32),
        random_points(2, 700),
    )
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = both(logits, masks, [5, 4], points)
        for count in (2, 3):
            torch.set_num_threads(count)
            for one, other in zip(both(logits, masks, [5, 4], points), expected, strict=True):
                assert torch.equal(one, other)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_opcheck(device: str, compiled: str, dtype: torch.dtype) -> None:
    logits, masks, points = to(
        device,
        random_logits(2, 3, 6, 9, dtype=dtype),
        random_masks(4, 12, 12),
        random_points(2, 20),
    )
    torch.library.opcheck(torch.ops.ddep.point_mask_costs, (logits, masks, [3, 1], points))
    torch.library.opcheck(torch.ops.ddep.dense_mask_costs, (logits, masks, [3, 1]))
    logits[0].requires_grad_()
    cost, _ = torch.ops.ddep.point_mask_costs(logits, masks, [3, 1], points)
    with pytest.raises(RuntimeError, match="not implemented"):
        cost.sum().backward()


@pytest.mark.parametrize("function", [point_mask_costs, dense_mask_costs])
def test_compiles_whole(device: str, compiled: str, function: Callable[..., Costs]) -> None:
    """In one graph, and agrees with the reference."""
    logits, masks, points = to(
        device, random_logits(2, 3, 6, 9), random_masks(4, 12, 12), random_points(2, 20)
    )
    arguments = (logits, masks, [3, 1], *([points] if function is point_mask_costs else []))
    traced = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    for one, other in zip(traced(*arguments), function(*arguments), strict=True):
        assert torch.equal(one, other)


MISTAKES: dict[str, tuple[Callable[..., tuple], str]] = {
    "shapes": (lambda x, m, n, p: ([x[0], x[1][:, :1]], m, n, p), "mask_logits"),
    "dtypes": (lambda x, m, n, p: ([x[0], x[1].double()], m, n, p), "mask_logits"),
    "float masks": (lambda x, m, n, p: (x, m.float(), n, p), "bool or uint8"),
    "sum": (lambda x, m, n, p: (x, m, [3, 2], p), "num_targets"),
    "images": (lambda x, m, n, p: (x, m, [4], p), "num_targets"),
    "points": (lambda x, m, n, p: (x, m, n, p[:1]), r"points has shape \[1, 20, 2\]"),
    "coordinates": (lambda x, m, n, p: (x, m, n, p[..., :1]), "points has shape"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(device: str, implementation: str, mistake: str) -> None:
    change, message = MISTAKES[mistake]
    logits, masks, points = to(
        device, random_logits(2, 3, 6, 9), random_masks(4, 12, 12), random_points(2, 20)
    )
    arguments = change(logits, masks, [3, 1], points)
    with pytest.raises(ValueError, match=message):
        point_mask_costs(*arguments)
    if arguments[-1] is points:
        with pytest.raises(ValueError, match=message):
            dense_mask_costs(*arguments[:-1])
