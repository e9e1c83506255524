"""The matching, compared with formulas, exhaustive search and Hugging Face's matcher."""

from __future__ import annotations

import threading
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F
from transformers.models.mask2former import modeling_mask2former as hugging_face

from ddep.modeling import matcher as matching
from ddep.modeling.mask_costs import PointMaskCosts
from ddep.modeling.matcher import HungarianMatcher, Pairs

CLASSES = 5
WEIGHTS = {"cost_class": 2.0, "cost_mask": 5.0, "cost_dice": 3.0}


def random_layers(num_layers: int, batch: int, queries: int, seed: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "pred_logits": 2 * torch.randn(batch, queries, CLASSES + 1, generator=generator),
            "pred_masks": 3 * torch.randn(batch, queries, 6, 9, generator=generator),
        }
        for _ in range(num_layers)
    ]


def random_targets(counts: list[int], seed: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "labels": torch.randint(CLASSES, (count,), generator=generator),
            "masks": torch.rand(count, 24, 36, generator=generator) > 0.6,
        }
        for count in counts
    ]


def matcher_with_points(points: Tensor, monkeypatch: pytest.MonkeyPatch) -> HungarianMatcher:
    mask_costs = PointMaskCosts(points.shape[1])
    monkeypatch.setattr(mask_costs, "draw_points", lambda num_images, device: points[:num_images])
    return HungarianMatcher(**WEIGHTS, mask_costs=mask_costs)


def match(
    matcher: HungarianMatcher, layers: list[dict[str, Tensor]], targets: list[dict[str, Tensor]]
) -> list[list[Pairs]]:
    counts = [len(target["labels"]) for target in targets]
    return matcher(compute_costs(matcher, layers, targets), counts)


def compute_costs(
    matcher: HungarianMatcher, layers: list[dict[str, Tensor]], targets: list[dict[str, Tensor]]
) -> Tensor:
    labels, masks = ([target[name] for target in targets] for name in ("labels", "masks"))
    return matcher.compute_costs(layers, labels, torch.cat(masks))


def costs_in_float64(
    outputs: dict[str, Tensor], target: dict[str, Tensor], image: int, points: Tensor
) -> np.ndarray:
    """Costs of one layer and image, pair by pair, from the definitions."""
    grid = (2 * points.double() - 1)[None, :, None]

    def sample(masks: Tensor) -> np.ndarray:
        values = F.grid_sample(masks.double()[None], grid, align_corners=False)
        return values[0, :, :, 0].numpy()

    probabilities = 1 / (1 + np.exp(-sample(outputs["pred_masks"][image])))
    masks = sample(target["masks"])
    logits = outputs["pred_logits"][image].double().numpy()
    costs = np.zeros((len(probabilities), len(masks)))
    for q, p in enumerate(probabilities):
        class_probabilities = np.exp(logits[q]) / np.exp(logits[q]).sum()
        for t, m in enumerate(masks):
            cross_entropy = -(m * np.log(p) + (1 - m) * np.log(1 - p)).mean()
            dice = 1 - (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1)
            costs[q, t] = (
                WEIGHTS["cost_mask"] * cross_entropy
                + WEIGHTS["cost_dice"] * dice
                - WEIGHTS["cost_class"] * class_probabilities[target["labels"][t]]
            )
    return costs


def test_costs_against_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, targets = random_layers(3, 2, 7, seed=0), random_targets([4, 2], seed=1)
    points = torch.rand(2, 60, 2, generator=torch.Generator().manual_seed(2))
    costs = compute_costs(matcher_with_points(points, monkeypatch), layers, targets)
    assert costs.dtype == torch.float32
    expected = np.stack(
        [
            np.concatenate(
                [costs_in_float64(outputs, t, i, points[i]) for i, t in enumerate(targets)], axis=1
            )
            for outputs in layers
        ]
    )
    np.testing.assert_allclose(costs.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("counts", [[4, 6], [3, 0, 5], [10, 1, 2]])
def test_pairs_against_hugging_face(counts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    layers, targets = random_layers(4, len(counts), 8, seed=4), random_targets(counts, seed=5)
    points = torch.rand(len(counts), 50, 2, generator=torch.Generator().manual_seed(6))
    matches = match(matcher_with_points(points, monkeypatch), layers, targets)
    reference = hugging_face.Mask2FormerHungarianMatcher(**WEIGHTS, num_points=50)
    for outputs, matches_of_layer in zip(layers, matches, strict=True):
        draws = iter(points[:, None])
        monkeypatch.setattr(torch, "rand", lambda *size, draws=draws, **kwargs: next(draws))
        expected = reference(
            outputs["pred_masks"],
            outputs["pred_logits"],
            [target["masks"] for target in targets],
            [target["labels"] for target in targets],
        )
        for (queries, matched), pair in zip(matches_of_layer, expected, strict=True):
            assert queries.dtype == matched.dtype == np.int64
            assert queries.tolist() == pair[0].tolist()
            assert matched.tolist() == pair[1].tolist()


@pytest.mark.parametrize(("queries", "count"), [(5, 3), (3, 5), (4, 4)])
def test_no_assignment_is_cheaper(
    queries: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, targets = random_layers(2, 1, queries, seed=7), random_targets([count], seed=8)
    points = torch.rand(1, 30, 2, generator=torch.Generator().manual_seed(9))
    matches = match(matcher_with_points(points, monkeypatch), layers, targets)
    for outputs, [(query_index, target_index)] in zip(layers, matches, strict=True):
        costs = costs_in_float64(outputs, targets[0], 0, points[0])
        size = min(queries, count)
        assert len(set(query_index.tolist())) == len(set(target_index.tolist())) == size
        found = costs[query_index, target_index].sum()
        wide = costs if queries <= count else costs.T
        best = min(wide[range(size), p].sum() for p in permutations(range(max(wide.shape)), size))
        assert found == pytest.approx(best, abs=1e-4)


def test_perfect_predictions_find_their_targets() -> None:
    targets = random_targets([4, 3], seed=10)
    orders = [torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])]
    logits, masks = torch.zeros(2, 6, CLASSES + 1), torch.full((2, 6, 24, 36), -8.0)
    for image, (target, order) in enumerate(zip(targets, orders, strict=True)):
        logits[image, torch.arange(len(order)), target["labels"][order]] = 5.0
        masks[image, : len(order)] = 16.0 * target["masks"][order] - 8.0
    outputs = {"pred_logits": logits, "pred_masks": masks}
    matcher = HungarianMatcher(**WEIGHTS, mask_costs=PointMaskCosts(500))
    [matches] = match(matcher, [outputs], targets)
    for (queries, matched), order in zip(matches, orders, strict=True):
        assert queries.tolist() == list(range(len(order)))
        assert matched.tolist() == order.tolist()


def test_images_without_targets() -> None:
    layers, targets = random_layers(2, 2, 4, seed=11), random_targets([0, 0], seed=12)
    for matches in match(HungarianMatcher(mask_costs=PointMaskCosts(10)), layers, targets):
        assert [(len(queries), len(matched)) for queries, matched in matches] == [(0, 0), (0, 0)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_costs_that_are_not_finite_are_high(value: float) -> None:
    """The others are matched as if those queries or targets did not exist."""
    costs = torch.rand(2, 5, 3 + 4, generator=torch.Generator().manual_seed(13))
    matcher = HungarianMatcher(mask_costs=PointMaskCosts(10))
    strange = costs.clone()
    strange[1, 2] = value  # a query with both images
    strange[1, 4, 5] = value  # a pair
    expected = matcher(costs[:1], [3, 4]) + matcher(
        costs[1:].index_fill(1, torch.tensor(2), 9), [3, 4]
    )
    [first, second], [first_expected, second_expected] = matcher(strange, [3, 4]), expected
    for one, other in zip([*first, second[0]], [*first_expected, second_expected[0]], strict=True):
        assert one[0].tolist() == other[0].tolist()
        assert one[1].tolist() == other[1].tolist()
    queries, targets = second[1]
    assert queries.tolist() == [0, 1, 3, 4]
    assert sorted(targets.tolist()) == [0, 1, 2, 3]
    assert (4, 2) not in zip(queries.tolist(), targets.tolist(), strict=True)

    [[(queries, targets)]] = matcher(torch.full((1, 3, 2), value), [2])
    assert len(set(queries.tolist())) == 2
    assert sorted(targets.tolist()) == [0, 1]


@pytest.mark.parametrize(("layers", "in_threads"), [(2, False), (6, True)])
def test_many_problems_are_solved_in_threads(
    layers: int, in_threads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = torch.rand(layers, 100, 60 + 40, generator=torch.Generator().manual_seed(14))
    solvers = set()

    def solve(problem: np.ndarray) -> Pairs:
        solvers.add(threading.current_thread())
        return linear_sum_assignment(problem)

    monkeypatch.setattr(matching, "linear_sum_assignment", solve)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    matches = HungarianMatcher(mask_costs=PointMaskCosts(10))(costs, [60, 40])
    assert (threading.current_thread() not in solvers) == in_threads
    for of_layer, pairs in zip(costs.numpy(), matches, strict=True):
        for problem, (queries, targets) in zip(np.split(of_layer, [60], 1), pairs, strict=True):
            expected = linear_sum_assignment(problem)
            np.testing.assert_array_equal(queries, expected[0])
            np.testing.assert_array_equal(targets, expected[1])


def test_costs_are_float32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, targets = random_layers(1, 1, 4, seed=15), random_targets([3], seed=16)
    halves = [{name: value.bfloat16() for name, value in outputs.items()} for outputs in layers]
    wide = [{name: value.float() for name, value in outputs.items()} for outputs in halves]
    points = torch.rand(1, 40, 2, generator=torch.Generator().manual_seed(17))
    matcher = matcher_with_points(points, monkeypatch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        costs = compute_costs(matcher, halves, targets)
    assert costs.dtype == torch.float32
    assert torch.equal(costs, compute_costs(matcher, wide, targets))


def test_points_are_uniform_and_differ_between_images() -> None:
    torch.manual_seed(0)
    points = PointMaskCosts(4000).draw_points(2, torch.device("cpu"))
    assert points.shape == (2, 4000, 2)
    assert points.min() >= 0
    assert points.max() <= 1
    torch.testing.assert_close(points.mean(1), torch.full((2, 2), 0.5), atol=0.03, rtol=0)
    assert not torch.equal(points[0], points[1])
