"""Mask losses, matching costs and drawn points on a GPU, against float64 formulas and the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from tests.ops import mask_formulas
from tests.ops.conftest import force
from tests.ops.mask_cases import DTYPES, TOLERANCE, make_case, make_costs, relative_error
from tests.ops.mask_emulation import Case

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

NUM_TARGETS = [3, 0, 40]


@pytest.fixture(scope="module", autouse=True)
def compiled() -> Iterator[str]:
    yield from force("compiled", "cuda")


@contextmanager
def no_waiting() -> Iterator[None]:
    """What waits for the GPU is an error, copies from and to the host included."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def on_gpu(case: Case) -> Case:
    moved = (None if t is None else t.cuda() for t in case[1:])
    return Case([logits.cuda() for logits in case.mask_logits], *moved)


def check(actual: tuple[Tensor, ...], exact: tuple[Tensor, ...], tolerance: float) -> None:
    for a, e in zip(actual, exact, strict=True):
        assert a.is_cuda
        assert relative_error(a.cpu(), e) < tolerance


def losses_and_gradients(case: Case, weights: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    logits = [layer.detach().requires_grad_() for layer in case.mask_logits]
    losses = torch.ops.ddep.point_mask_losses(logits, *case[1:])
    total = (weights * torch.stack(losses)).sum()
    return [loss.detach() for loss in losses], list(torch.autograd.grad(total, logits))


@pytest.mark.parametrize("dtype", DTYPES)
def test_point_losses_match_formula(dtype) -> None:
    case = make_case(dtype, points=12544, mask_size=(64, 64), size=(16, 16), pairs=9, layers=3)
    weights = torch.randn(2, *case.images.shape, generator=torch.Generator().manual_seed(1))
    given, given_weights = on_gpu(case), weights.cuda()
    with no_waiting():
        losses, gradients = losses_and_gradients(given, given_weights)
    exact_case = case._replace(
        mask_logits=[logits.double().requires_grad_() for logits in case.mask_logits]
    )
    exact = mask_formulas.losses(*exact_case)
    exact_gradients = torch.autograd.grad(
        (weights * torch.stack(exact)).sum(), exact_case.mask_logits
    )
    check(tuple(losses), tuple(loss.detach() for loss in exact), TOLERANCE[dtype][0])
    check(tuple(gradients), exact_gradients, TOLERANCE[dtype][1])
    assert all(g.dtype == dtype for g in gradients)


@pytest.mark.parametrize("points", [12544, None], ids=["points", "dense"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_costs_match_formula(dtype, points) -> None:
    options = {"queries": 100, "size": (16, 16), "mask_size": (64, 64) if points else (16, 16)}
    case = make_costs(dtype, NUM_TARGETS, points=points, **options)
    given = on_gpu(case)
    arguments = (given.mask_logits, given.masks, NUM_TARGETS)
    with no_waiting():
        if points is None:
            costs = torch.ops.ddep.dense_mask_costs(*arguments)
        else:
            costs = torch.ops.ddep.point_mask_costs(*arguments, given.points)
    exact = mask_formulas.costs(case.mask_logits, case.masks, NUM_TARGETS, case.points)
    check(costs, exact, TOLERANCE[dtype][0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_uncertain_points_are_those_of_the_cpu(dtype) -> None:
    """To the bit. Neither kind of seed makes the host wait."""
    case = make_case(dtype, size=(64, 48), pairs=40, layers=10)
    given, seed = on_gpu(case), torch.tensor(2**62 - 12345)
    seed_on_gpu, numbers = seed.cuda(), (12544, 37632, 9408)
    with no_waiting():
        drawn = [
            torch.ops.ddep.uncertain_points(
                given.mask_logits, given.images, given.queries, of_either, *numbers
            )
            for of_either in (seed, seed_on_gpu)
        ]
    expected = torch.ops.ddep.uncertain_points(
        case.mask_logits, case.images, case.queries, seed, *numbers
    )
    assert torch.equal(drawn[0].cpu(), expected) and torch.equal(drawn[1].cpu(), expected)


def test_uniform_points_are_those_of_the_cpu() -> None:
    seed = torch.tensor(-987654321)
    seed_on_gpu = seed.cuda()
    with no_waiting():
        drawn = torch.ops.ddep.uniform_points(seed_on_gpu, 7, 12345)
    assert torch.equal(drawn.cpu(), torch.ops.ddep.uniform_points(seed, 7, 12345))


def test_nothing_to_do() -> None:
    case = on_gpu(make_case(pairs=0))
    losses, gradients = losses_and_gradients(case, torch.zeros(2, *case.images.shape).cuda())
    assert losses[0].shape == case.images.shape and not any(g.any() for g in gradients)
    costs = on_gpu(make_costs(torch.float32, [0, 0]))
    cost, _ = torch.ops.ddep.point_mask_costs(costs.mask_logits, costs.masks, [0, 0], costs.points)
    assert cost.shape == (2, 5, 0)
    arguments = (case.mask_logits, case.images, case.queries, torch.tensor(0))
    assert torch.ops.ddep.uncertain_points(*arguments, 9, 9, 9).shape == (2, 0, 9, 2)


def test_views_that_are_not_contiguous() -> None:
    case = on_gpu(make_case())
    strided = case._replace(
        mask_logits=[logits.transpose(2, 3).contiguous().mT for logits in case.mask_logits],
        images=case.images.t().contiguous().t(),
        masks=case.masks.transpose(1, 2).contiguous().mT.bool(),
    )
    weights = torch.ones(2, *case.images.shape).cuda()
    for one, other in zip(
        losses_and_gradients(case, weights), losses_and_gradients(strided, weights), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_more_layers_than_a_launch_takes() -> None:
    case = on_gpu(make_case(layers=65))
    with pytest.raises(RuntimeError, match="65 layers; CUDA kernels take at most 64"):
        torch.ops.ddep.point_mask_losses(case.mask_logits, *case[1:])
