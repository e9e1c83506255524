"""The CUDA kernels of mask losses and costs, run by an emulation of CUDA, without a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddep.ops import extension
from tests.ops import mask_formulas
from tests.ops.mask_cases import DTYPES, TOLERANCE, make_case, make_costs, relative_error
from tests.ops.mask_emulation import Case, MaskKernels
from tests.ops.native_build import build_emulation

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def kernels(tmp_path_factory) -> MaskKernels:
    return MaskKernels(build_emulation(tmp_path_factory.mktemp("masks"), "mask_driver.cpp"))


def check_losses(kernels: MaskKernels, case: Case, *, reversed: bool = False) -> None:
    """Compare losses and gradients with the formula's."""
    results, gradients = TOLERANCE[case.mask_logits[0].dtype]
    exact_case = case._replace(
        mask_logits=[logits.double().requires_grad_() for logits in case.mask_logits]
    )
    exact = mask_formulas.losses(*exact_case)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(case.images.shape, generator=generator) for _ in range(2)]
    (weights[0] * exact[0] + weights[1] * exact[1]).sum().backward()
    for loss, e in zip(kernels.losses(case, reversed=reversed), exact, strict=True):
        assert relative_error(loss, e.detach()) < results
    weights = [w.to(case.real) for w in weights]
    actual = kernels.losses_backward(case, *weights, reversed=reversed)
    for gradient, logits in zip(actual, exact_case.mask_logits, strict=True):
        assert relative_error(gradient, logits.grad) < gradients


@pytest.mark.parametrize("points", [150, None], ids=["points", "dense"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_match_formula(kernels, dtype, points) -> None:
    check_losses(kernels, make_case(dtype, points=points))


@pytest.mark.parametrize("points", [150, None], ids=["points", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_order_of_threads_has_no_effect_on_losses(kernels, dtype, points) -> None:
    check_losses(kernels, make_case(dtype, points=points), reversed=True)


@pytest.mark.parametrize("points", [1, 256, 513])
@pytest.mark.parametrize("size", [(1, 1), (1, 8), (32, 16)])
def test_point_losses_of_any_size(kernels, size, points) -> None:
    check_losses(kernels, make_case(size=size, points=points, mask_size=size, targets=1))


@pytest.mark.parametrize("mask_size", [(1, 1), (5, 3), (13, 17), (28, 40), (26, 34)])
@pytest.mark.parametrize("size", [(1, 1), (13, 17)])
def test_dense_losses_of_any_size(kernels, size, mask_size) -> None:
    """Predictions are enlarged, reduced or kept."""
    check_losses(kernels, make_case(points=None, size=size, mask_size=mask_size, layers=1))


@pytest.mark.parametrize("size", [(13, 17), (33, 2)])
def test_dense_losses_of_steep_predictions(kernels, size) -> None:
    """Where a logit crosses 0 in a millionth of a pixel, places need all their digits."""
    case = make_case(points=None, size=size, mask_size=(40, 50), pairs=9)
    case = case._replace(mask_logits=[1e5 * logits for logits in case.mask_logits])
    exact = mask_formulas.losses(*case)
    for loss, e in zip(kernels.losses(case), exact, strict=True):
        torch.testing.assert_close(loss.double(), e, rtol=5e-6, atol=1e-6)


@pytest.mark.parametrize("points", [150, None], ids=["points", "dense"])
@pytest.mark.parametrize("covered", [0, 1])
def test_losses_of_empty_and_full_masks(kernels, points, covered) -> None:
    case = make_case(points=points)
    case.masks.fill_(covered)
    check_losses(kernels, case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("points", [150, None], ids=["points", "dense"])
@pytest.mark.parametrize("index", ["images", "queries", "targets"])
@pytest.mark.parametrize("bad", [-1, 2**40])
def test_index_out_of_range_gives_nan_and_no_gradient(kernels, points, index, bad, dtype) -> None:
    """Nothing is read or written elsewhere; the other pairs' results do not change."""
    case = make_case(dtype, points=points)
    right = kernels.losses(case)
    getattr(case, index)[1, 3] = bad
    for wrong, loss in zip(kernels.losses(case), right, strict=True):
        assert wrong[1, 3].isnan()
        wrong[1, 3] = loss[1, 3]
        torch.testing.assert_close(wrong, loss)
    grad = torch.zeros(case.images.shape)
    grad[1, 3] = 1
    assert not any(g.any() for g in kernels.losses_backward(case, grad, grad))


@pytest.mark.parametrize("points", [150, None], ids=["points", "dense"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_predictions_reach_a_loss(kernels, points, bad) -> None:
    case = make_case(points=points, images=1, queries=2, pairs=2)
    case.queries[:] = torch.tensor([0, 1])
    case.mask_logits[0][:, 1] = bad
    case.masks.zero_()
    loss, _ = kernels.losses(case)
    assert loss[0, 0].isfinite() and not loss[0, 1].isfinite() and loss[1].isfinite().all()


def check_costs(kernels, case: Case, num_targets: list[int], *, reversed: bool = False) -> None:
    results, _ = TOLERANCE[case.mask_logits[0].dtype]
    exact = mask_formulas.costs(case.mask_logits, case.masks, num_targets, case.points)
    for cost, e in zip(kernels.costs(case, num_targets, reversed=reversed), exact, strict=True):
        assert relative_error(cost, e) < results


@pytest.mark.parametrize("points", [150, None], ids=["points", "dense"])
@pytest.mark.parametrize("num_targets", [[3], [0, 35, 4]], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_costs_match_formula(kernels, dtype, num_targets, points) -> None:
    case = make_costs(dtype, num_targets, points=points, mask_size=(7, 9))
    check_costs(kernels, case, num_targets)


@pytest.mark.parametrize("points", [150, None], ids=["points", "dense"])
def test_order_of_threads_has_no_effect_on_costs(kernels, points) -> None:
    case = make_costs(torch.float32, [33, 1], points=points, mask_size=(7, 9))
    check_costs(kernels, case, [33, 1], reversed=True)


@pytest.mark.parametrize("queries", [1, 16, 37])
@pytest.mark.parametrize("points", [1, 64, 300])
def test_costs_of_any_size(kernels, points, queries) -> None:
    case = make_costs(torch.float32, [2, 5], points=points, queries=queries, layers=3)
    check_costs(kernels, case, [2, 5])


# ---- drawing ----


def philox(key: int, counter: tuple[int, int, int, int]) -> list[int]:
    """Philox4x32-10 (Salmon et al., 2011, section 4.3)."""
    mask = 2**32 - 1
    keys, words = [key & mask, key >> 32], list(counter)
    for _ in range(10):
        left, right = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        words = [
            right >> 32 ^ words[1] ^ keys[0],
            right & mask,
            left >> 32 ^ words[3] ^ keys[1],
            left & mask,
        ]
        keys = [(keys[0] + 0x9E3779B9) & mask, (keys[1] + 0xBB67AE85) & mask]
    return words


def drawn_points(seed: int, stream: int, row: int, count: int) -> Tensor:
    words = [philox(seed % 2**64, (j, row, stream, 0)) for j in range((count + 1) // 2)]
    numbers = torch.tensor(words, dtype=torch.float64).view(-1, 2) // 256 / 2**24
    return numbers[:count].float()


def test_generator_gives_the_published_words() -> None:
    """One of the known answers that come with Random123, the authors' library."""
    assert philox(0, (0, 0, 0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("seed", [0, 12345678901234567, -3])
def test_uniform_points(kernels, seed, on_device) -> None:
    points = kernels.uniform_points(seed, 3, 301, on_device=on_device)
    for row in range(3):
        assert torch.equal(points[row], drawn_points(seed, 0, row, 301))


def expected_choice(logits: Tensor, candidates: Tensor, count: int) -> Tensor:
    values = mask_formulas.sample(logits, candidates).abs().nan_to_num(nan=0)
    return values.argsort(stable=True)[:count].sort().values


@pytest.mark.parametrize("reversed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("drawing", [(60, 1100, 45), (7, 3, 3), (5, 9, 0), (4, 4, 4)], ids=str)
def test_uncertain_points(kernels, drawing, dtype, reversed) -> None:
    case = make_case(dtype)
    num_points, num_candidates, num_uncertain = drawing
    points = kernels.uncertain_points(case, 77, drawing, reversed=reversed)
    for row in range(case.images.numel()):
        layer, pair = divmod(row, case.images.shape[1])
        logits = case.mask_logits[layer][case.images[layer, pair], case.queries[layer, pair]]
        candidates = drawn_points(77, 1, row, num_candidates)
        chosen = candidates[expected_choice(logits, candidates, num_uncertain)]
        rest = drawn_points(77, 2, row, num_points - num_uncertain)
        assert torch.equal(points[layer, pair], torch.cat([chosen, rest]))


@pytest.mark.parametrize("reversed", [False, True])
@pytest.mark.parametrize("value", [0.0, float("nan"), 2.0])
def test_earlier_candidates_win_ties(kernels, value, reversed) -> None:
    """A half of the mask has one value, the other is surer than that."""
    case = make_case(size=(8, 8), images=1, queries=1, pairs=1, layers=1)
    case.mask_logits[0][...] = 3
    case.mask_logits[0][..., :4] = value
    candidates = drawn_points(5, 1, 0, 2000)
    inside = ((candidates > 0.1) & (candidates < 0.4)).all(-1)
    count = 600  # between the number of candidates at the border and of those with the value
    points = kernels.uncertain_points(case, 5, (count, 2000, count), reversed=reversed)[0, 0]
    kept = (candidates[:, None] == points).all(-1).any(-1)
    assert kept.sum() == count
    ties = kept[inside]
    assert 0 < ties.sum() < len(ties) and (ties.int().diff() <= 0).all()


def test_uncertain_points_are_those_of_the_cpu_kernels(kernels, compiled_on_cpu) -> None:
    """To the bit, though what they choose from is rounded: the operations and their order agree."""
    if extension._LIBRARY.cpu_kernels != "AVX2":
        pytest.skip("without fused multiply-add, CPU kernels round otherwise")
    case = make_case(size=(37, 50), layers=1)
    drawing = (900, 3000, 700)
    actual = kernels.uncertain_points(case, 11, drawing)
    pairs = (case.mask_logits, case.images, case.queries)
    expected = torch.ops.ddep.uncertain_points(*pairs, torch.tensor(11), *drawing)
    assert torch.equal(actual, expected)


def test_uncertain_points_with_index_out_of_range(kernels) -> None:
    case = make_case()
    case.images[0, 1], case.queries[1, 0] = -1, 2**40
    points = kernels.uncertain_points(case, 3, (10, 40, 10))
    assert torch.equal(points[0, 1], drawn_points(3, 1, 1, 10))
    assert torch.equal(points[1, 0], drawn_points(3, 1, 4, 10))
