"""Losses of matched masks and their gradients, compared with formulas in float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from ddep.ops import dense_mask_losses, point_mask_losses
from tests.ops import mask_formulas

Losses = tuple[Tensor, Tensor]


class Pairs(NamedTuple):
    """Arguments of the losses, of three layers by default."""

    mask_logits: list[Tensor]
    images: Tensor
    queries: Tensor
    masks: Tensor
    targets: Tensor

    def on(self, device: str) -> Pairs:
        return Pairs([layer.to(device) for layer in self.mask_logits],
                     *(tensor.to(device) for tensor in self[1:]))  # fmt: skip

    def differentiable(self) -> Pairs:
        logits = [layer.detach().clone().requires_grad_() for layer in self.mask_logits]
        return self._replace(mask_logits=logits)


def random_pairs(
    size: tuple[int, int] = (13, 17),
    mask_size: tuple[int, int] = (40, 50),
    pairs: int = 5,
    layers: int = 3,
    dtype: torch.dtype = torch.float32,
    mask_dtype: torch.dtype = torch.bool,
) -> Pairs:
    generator = torch.Generator().manual_seed(0)

    def indices(end: int) -> Tensor:
        return torch.randint(end, (layers, pairs), generator=generator)

    logits = [3 * torch.randn(2, 7, *size, generator=generator).to(dtype) for _ in range(layers)]
    masks = (torch.rand(6, *mask_size, generator=generator) > 0.6).to(mask_dtype)
    masks[1], masks[2] = 0, 1  # an empty and a full one
    return Pairs(logits, indices(2), indices(7), masks, indices(6))


def random_points(pairs: Pairs, count: int | None) -> Tensor | None:
    """Some outside, and some on borders, on pixels' edges and centres."""
    if count is None:
        return None
    generator = torch.Generator().manual_seed(2)
    points = 1.3 * torch.rand(*pairs.images.shape, count, 2, generator=generator) - 0.15
    special = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [-9.0, 0.5], [0.5, 1e30]])
    points[:, :, : len(special)] = special[:count]
    return points


def compute(pairs: Pairs, points: Tensor | None) -> Losses:
    """At points, or over all pixels if there are none."""
    if points is None:
        return dense_mask_losses(*pairs)
    return point_mask_losses(*pairs, points.to(pairs.masks.device))


def gradients(losses: Losses, pairs: Pairs) -> list[Tensor]:
    """Of a sum with random weights."""
    generator = torch.Generator().manual_seed(3)
    weights = torch.rand(2, *pairs.images.shape, generator=generator).to(losses[0].device)
    total = (losses[0] * weights[0] + losses[1] * weights[1]).sum()
    return list(torch.autograd.grad(total, pairs.mask_logits))


def relative_error(found: Tensor, expected: Tensor) -> float:
    difference = found.double().cpu() - expected.double()
    return (difference.norm() / expected.double().norm()).item()


# Numbers of points; None is all pixels.
KINDS = pytest.mark.parametrize("count", [300, None], ids=["points", "pixels"])

# Of losses and gradients. float32 rounds places to some 1e-6 of a pixel in the reference.
TOLERANCES = {"compiled": 1e-6, "reference": 2e-5}


@pytest.mark.parametrize("count", [1, 7, 255, 256, 1000, None])
@pytest.mark.parametrize(
    ("size", "mask_size", "mask_dtype"),
    [
        ((13, 17), (40, 50), torch.bool),
        ((1, 1), (1, 1), torch.uint8),
        ((33, 2), (9, 64), torch.uint8),
        ((9, 16), (36, 64), torch.bool),
    ],
)
def test_losses_and_gradients_against_the_formula(
    device: str,
    implementation: str,
    size: tuple[int, int],
    mask_size: tuple[int, int],
    mask_dtype: torch.dtype,
    count: int,
) -> None:
    pairs = random_pairs(size, mask_size, mask_dtype=mask_dtype).differentiable()
    points = random_points(pairs, count)
    expected = mask_formulas.losses(*pairs, points)
    there = pairs.on(device)
    found = compute(there, points)
    tolerance = TOLERANCES[implementation]
    for one, other in zip(found, expected, strict=True):
        assert one.shape == (3, 5) and one.dtype == torch.float32
        torch.testing.assert_close(one.cpu().double(), other, rtol=tolerance, atol=1e-7)
    both = gradients(found, pairs), gradients(expected, pairs)
    for one, other in zip(*both, strict=True):
        assert relative_error(one, other) < tolerance


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("count", "points_dtype"), [(300, torch.float32), (300, torch.float64), (None, None)]
)
def test_other_dtypes(
    device: str,
    implementation: str,
    dtype: torch.dtype,
    count: int | None,
    points_dtype: torch.dtype | None,
) -> None:
    """Half types are computed in float32, and only their gradients are rounded."""
    pairs = random_pairs(dtype=dtype).differentiable()
    points = random_points(pairs, count)
    if points is not None:
        points = points.to(points_dtype)
    expected = mask_formulas.losses(*pairs, points)
    found = compute(pairs.on(device), points)
    wide = dtype == torch.float64
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == (torch.float64 if wide else torch.float32)
        rtol = 1e-12 if wide else TOLERANCES[implementation]
        torch.testing.assert_close(one.cpu().double(), other, rtol=rtol, atol=rtol)
    both = gradients(found, pairs), gradients(expected, pairs)
    for one, other in zip(*both, strict=True):
        assert one.dtype == dtype
        tolerance = 1e-12 if wide else torch.finfo(dtype).eps
        assert relative_error(one, other) < tolerance


@KINDS
def test_gradcheck(device: str, implementation: str, count: int | None) -> None:
    """The points do not depend on logits, so this is the whole gradient."""
    pairs = random_pairs((4, 5), (9, 8), layers=2, dtype=torch.float64).on(device).differentiable()
    points = random_points(pairs, count)

    def losses(*mask_logits: Tensor) -> Losses:
        return compute(pairs._replace(mask_logits=list(mask_logits)), points)

    # A GPU adds up gradients in any order.
    nondet_tol = 0 if device == "cpu" else 1e-12
    assert torch.autograd.gradcheck(losses, pairs.mask_logits, nondet_tol=nondet_tol)


@KINDS
def test_gradients_of_one_loss_or_one_layer(
    device: str, implementation: str, count: int | None
) -> None:
    pairs = random_pairs().differentiable()
    points = random_points(pairs, count)
    expected = mask_formulas.losses(*pairs, points)
    found = compute(pairs.on(device), points)
    for loss, other in zip(found, expected, strict=True):
        (one,) = torch.autograd.grad(loss[1].sum(), pairs.mask_logits[1], retain_graph=True)
        (gradient,) = torch.autograd.grad(other[1].sum(), pairs.mask_logits[1], retain_graph=True)
        assert relative_error(one, gradient) < TOLERANCES[implementation]
    first, last = random_pairs().differentiable().mask_logits[::2]
    logits = [first.detach(), *random_pairs().mask_logits[1:2], last]
    found = compute(pairs._replace(mask_logits=logits).on(device), points)
    (one,) = torch.autograd.grad(found[0].sum(), last)
    (gradient,) = torch.autograd.grad(expected[0].sum(), pairs.mask_logits[2])
    assert relative_error(one, gradient) < TOLERANCES[implementation]


@KINDS
def test_a_prediction_in_several_pairs_gets_the_sum(
    device: str, implementation: str, count: int | None
) -> None:
    pairs = random_pairs(pairs=6).differentiable()
    pairs = pairs._replace(
        images=torch.tensor([[1, 0, 1, 1, 0, 1]] * 3),
        queries=torch.tensor([[4, 4, 4, 2, 4, 4]] * 3),
    )
    points = random_points(pairs, count)
    found = gradients(compute(pairs.on(device), points), pairs)
    expected = gradients(mask_formulas.losses(*pairs, points), pairs)
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < TOLERANCES[implementation]


@KINDS
def test_unmatched_masks_get_zeros(device: str, implementation: str, count: int | None) -> None:
    pairs = random_pairs(pairs=1).differentiable()
    found = gradients(compute(pairs.on(device), random_points(pairs, count)), pairs)
    for layer, gradient in enumerate(found):
        touched = gradient.abs().sum((2, 3)).nonzero().tolist()
        assert touched == [[pairs.images[layer, 0].item(), pairs.queries[layer, 0].item()]]


def test_sums_keep_their_digits(device: str, implementation: str) -> None:
    """Over 200,000 points, float32 would lose three."""
    pairs = random_pairs(pairs=1, layers=1)
    points = torch.rand(1, 1, 200_000, 2, generator=torch.Generator().manual_seed(0))
    found = compute(pairs.on(device), points)
    for one, other in zip(found, mask_formulas.losses(*pairs, points), strict=True):
        assert relative_error(one, other) < (3e-7 if implementation == "compiled" else 2e-5)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 100.0, 1e5])
@KINDS
def test_logits_of_any_size(
    device: str, implementation: str, count: int | None, scale: float
) -> None:
    """Certain predictions: no overflow, and small losses are not rounded to 0."""
    pairs = random_pairs()
    pairs = pairs._replace(mask_logits=[layer * scale for layer in pairs.mask_logits])
    pairs = pairs.differentiable()
    points = random_points(pairs, count)
    expected = mask_formulas.losses(*pairs, points)
    found = compute(pairs.on(device), points)
    tolerance = max(TOLERANCES[implementation], 1e-6)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu().double(), other, rtol=5 * tolerance, atol=1e-6)
    both = gradients(found, pairs), gradients(expected, pairs)
    for one, other in zip(*both, strict=True):
        # Where a logit crosses 0 steeply, rounding of places shows.
        assert relative_error(one, other) < 5 * tolerance * max(1, scale)


@KINDS
def test_right_answers_cost_nothing(device: str, implementation: str, count: int | None) -> None:
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[1, :, :4] = True
    logits = [(masks.float() * 100 - 50)[None]]
    pairs = Pairs(logits, torch.tensor([[0, 0]]), torch.tensor([[0, 1]]), masks,
                  torch.tensor([[0, 1]])).on(device)  # fmt: skip
    centres = (torch.cartesian_prod(torch.arange(8), torch.arange(8)) + 0.5) / 8  # exact
    points = None if count is None else centres.expand(1, 2, -1, -1)
    losses, dices = compute(pairs, points)
    assert losses.max() < 1e-21 and dices.max() < 1e-6
    wrong = pairs._replace(targets=pairs.targets.flip(1))
    losses, dices = compute(wrong, points)
    # The focal loss weighs half of the pixels with 1/4 or 3/4.
    expected = torch.tensor([[25.0, 25.0]]) * (torch.tensor([0.25, 0.75]) if count is None else 1)
    torch.testing.assert_close(losses.cpu(), expected)
    torch.testing.assert_close(dices.cpu(), torch.tensor([[1 - 1 / 33, 1 - 1 / 33]]))


@pytest.mark.parametrize("strange", [torch.nan, torch.inf, -torch.inf])
@KINDS
def test_strange_logits_reach_their_losses_only(
    device: str, implementation: str, count: int | None, strange: float
) -> None:
    pairs = random_pairs(pairs=2)
    pairs = pairs._replace(queries=torch.tensor([[0, 1]] * 3))
    points = random_points(pairs, count)
    clean = compute(pairs.on(device), points)
    pairs.mask_logits[1][pairs.images[1, 1], 1, 6, 8] = strange
    there = pairs.on(device).differentiable()
    found = compute(there, points)
    assert not found[0][1, 1].isfinite()
    if strange != strange:
        assert found[1][1, 1].isnan()
    for one, other in zip(found, clean, strict=True):
        assert torch.equal(one[[0, 2]], other[[0, 2]]) and torch.equal(one[1, 0], other[1, 0])
    gradient = gradients(found, there)[1]
    assert gradient[pairs.images[1, 0], 0].isfinite().all()
    if strange != strange:
        assert gradient[pairs.images[1, 1], 1].isnan().any()


@pytest.mark.parametrize("strange", [torch.nan, torch.inf, -torch.inf, -1e30, 3e9])
def test_strange_points_are_outside(device: str, implementation: str, strange: float) -> None:
    pairs = random_pairs().on(device)
    points = random_points(pairs, 300).to(device)
    outside = points.clone()
    points[:, :, ::7, 0], points[:, :, 3::7, 1] = strange, strange
    outside[:, :, ::7, 0], outside[:, :, 3::7, 1] = -5.0, -5.0
    there = pairs.differentiable()
    found, expected = (point_mask_losses(*there, p) for p in (points, outside))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    tolerance = {"rtol": 0, "atol": 0} if device == "cpu" else {"rtol": 1e-5, "atol": 1e-8}
    for one, other in zip(gradients(found, there), gradients(expected, there), strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@KINDS
def test_arguments_of_any_strides(device: str, implementation: str, count: int | None) -> None:
    pairs = random_pairs().on(device).differentiable()
    points = random_points(pairs, count)
    expected = compute(pairs, points)
    strided = Pairs(
        [layer.detach().permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0).requires_grad_()
         for layer in pairs.mask_logits],
        pairs.images.T.contiguous().T,
        pairs.queries.T.contiguous().T,
        pairs.masks.permute(2, 0, 1).contiguous().permute(1, 2, 0),
        pairs.targets.repeat_interleave(2, 1)[:, ::2],
    )  # fmt: skip
    if points is not None:
        points = points.transpose(2, 3).contiguous().transpose(2, 3)
    found = compute(strided, points)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
    for one, other in zip(gradients(found, strided), gradients(expected, pairs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("targets", [0, 3])
@KINDS
def test_no_pairs(device: str, implementation: str, count: int | None, targets: int) -> None:
    pairs = random_pairs(pairs=0)
    pairs = pairs._replace(masks=pairs.masks[:targets]).on(device).differentiable()
    losses = compute(pairs, random_points(pairs, count))
    assert losses[0].shape == losses[1].shape == (3, 0)
    for gradient in gradients(losses, pairs):
        assert not gradient.any()


@KINDS
def test_bits_do_not_depend_on_threads(
    compiled_on_cpu: str, any_threads: None, count: int | None
) -> None:
    pairs = random_pairs(pairs=7).differentiable()
    points = random_points(pairs, count)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        losses = compute(pairs, points)
        results.append([*losses, *gradients(losses, pairs)])
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@pytest.fixture
def any_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@KINDS
def test_autocast_changes_nothing(device: str, implementation: str, count: int | None) -> None:
    pairs = random_pairs().on(device)
    points = random_points(pairs, count)
    expected = compute(pairs, points)
    with torch.autocast(device, dtype=torch.bfloat16):
        found = compute(pairs, points)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32 and torch.equal(one, other)


@KINDS
def test_compiles_whole(device: str, implementation: str, count: int | None) -> None:
    """In one graph, through autograd."""
    pairs = random_pairs().on(device).differentiable()
    points = random_points(pairs, count)
    compiled = torch.compile(compute, fullgraph=True, backend="aot_eager")
    found, expected = compiled(pairs, points), compute(pairs, points)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(gradients(found, pairs), gradients(expected, pairs), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_opcheck(compiled_on_cpu: str, dtype: torch.dtype) -> None:
    pairs = random_pairs((4, 5), (9, 8), layers=2, dtype=dtype)
    points = random_points(pairs, 20)
    gradient, operators = torch.ones(2, 5), torch.ops.ddep
    opcheck, others = torch.library.opcheck, pairs.differentiable()
    opcheck(operators.point_mask_losses.default, (*others, points))
    opcheck(operators.point_mask_losses_backward.default, (gradient, gradient, *pairs, points))
    opcheck(operators.dense_mask_losses.default, others)
    opcheck(operators.dense_mask_losses_backward.default, (gradient, gradient, *pairs))


@KINDS
def test_no_second_derivative(compiled_on_cpu: str, count: int | None) -> None:
    """An error, not a wrong result."""
    pairs = random_pairs().differentiable()
    losses = compute(pairs, random_points(pairs, count))
    (gradient,) = torch.autograd.grad(losses[0].sum(), pairs.mask_logits[0], create_graph=True)
    with pytest.raises(RuntimeError, match="not implemented"):
        gradient.sum().backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"targets": torch.full((3, 5), 6)},
            "targets has values from 6 to 6; expected",
        ),
        ({"targets": torch.zeros(3, 4).long()}, r"targets has shape \[3, 4\]; expected that of"),
        ({"masks": torch.zeros(6, 8, 8)}, "masks is Float; expected bool or uint8"),
        ({"masks": torch.zeros(6, 0, 8).bool()}, "masks has masks of 0 x 8; expected from 1 to"),
        ({"masks": torch.zeros(8, 8).bool()}, "masks has 2 dimensions; expected 3"),
        ({"mask_logits": [torch.zeros(2, 7, 4, 4), torch.zeros(2, 7, 4, 5)]}, "mask_logits have"),
        ({"images": torch.full((3, 5), 2)}, "images has values from 2 to 2; expected from 0 to 1"),
    ],
)
def test_arguments_that_do_not_fit(compiled_on_cpu: str, changes: dict, message: str) -> None:
    pairs = random_pairs()
    points = random_points(pairs, 4)
    with pytest.raises(ValueError, match=f"^point_mask_losses: {message}"):
        point_mask_losses(*pairs._replace(**changes), points)
    with pytest.raises(ValueError, match=f"^dense_mask_losses: {message}"):
        dense_mask_losses(*pairs._replace(**changes))
    for wrong in (points.long(), points[:2], points[0], points[..., :1]):
        with pytest.raises(ValueError, match="^point_mask_losses: points "):
            point_mask_losses(*pairs, wrong)
