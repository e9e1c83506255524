"""Matching costs and losses of clips, compared with loops in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ddep.modeling.clip_criterion import ClipCriterion, ClipMaskCosts
from ddep.modeling.mask_losses import PointMaskLosses
from ddep.modeling.matcher import HungarianMatcher
from ddep.modeling.normalisers import average_over_processes

CLASSES, POINTS, FRAMES, QUERIES = 3, 12, 3, 4
WEIGHTS = {"cost_class": 2.0, "cost_mask": 5.0, "cost_dice": 3.0}


def make_criterion() -> ClipCriterion:
    return ClipCriterion(
        CLASSES,
        matcher=HungarianMatcher(mask_costs=ClipMaskCosts(POINTS), **WEIGHTS),
        mask_losses=PointMaskLosses(
            num_points=POINTS, oversample_ratio=3.0, importance_sample_ratio=0.75
        ),
        class_weight=2.0,
        mask_weight=5.0,
        dice_weight=3.0,
        no_object_weight=0.1,
        num_aux_outputs=1,
    )


def random_outputs(batch: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    layers = [
        {
            "pred_logits": 2 * torch.randn(batch, QUERIES, CLASSES + 1, generator=generator),
            "pred_masks": 3 * torch.randn(batch, QUERIES, FRAMES, 5, 6, generator=generator),
        }
        for _ in range(2)
    ]
    return {**layers[1], "aux_outputs": layers[:1]}


def random_targets(counts: list[int], seed: int) -> list[dict[str, Tensor]]:
    """Objects that cover half of the pixels of every frame, but one that is not in its last."""
    generator = torch.Generator().manual_seed(seed)
    targets = [
        {
            "labels": torch.randint(CLASSES, (count,), generator=generator),
            "masks": torch.rand(count, FRAMES, 10, 18, generator=generator) > 0.5,
        }
        for count in counts
    ]
    targets[0]["masks"][0, -1] = False
    return targets


def sample(image: Tensor, point: Tensor) -> float:
    """Interpolate a frame (h, w) between the centres of its pixels, with zeros outside."""
    height, width = image.shape
    x, y = float(point[0]) * width - 0.5, float(point[1]) * height - 0.5
    value = 0.0
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - abs(y - row)) * (1 - abs(x - column))
                value += weight * float(image[row, column])
    return value


def sampled(frames: Tensor, points: Tensor) -> np.ndarray:
    """(T, h, w) at (P, 2) -> (T * P,): the points of all frames."""
    return np.array([sample(frame, point) for frame in frames for point in points])


def cross_entropy(logits: np.ndarray, masks: np.ndarray) -> float:
    p = 1 / (1 + np.exp(-logits))
    return float(-(masks * np.log(p) + (1 - masks) * np.log(1 - p)).mean())


def dice(logits: np.ndarray, masks: np.ndarray) -> float:
    p = 1 / (1 + np.exp(-logits))
    return float(1 - (2 * (p * masks).sum() + 1) / (p.sum() + masks.sum() + 1))


def costs_of_clip(
    outputs: dict[str, Tensor], clip: int, target: dict[str, Tensor], points: Tensor
) -> np.ndarray:
    """(Q, N): the points of all frames are one mask."""
    logits = outputs["pred_logits"][clip].double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    costs = np.zeros((QUERIES, len(target["labels"])))
    for query in range(QUERIES):
        predicted = sampled(outputs["pred_masks"][clip, query], points)
        for number, label in enumerate(target["labels"].tolist()):
            masks = sampled(target["masks"][number], points)
            costs[query, number] = (
                5 * cross_entropy(predicted, masks)
                + 3 * dice(predicted, masks)
                - 2 * probabilities[query, label]
            )
    return costs


@pytest.mark.parametrize("counts", [[2, 3], [3, 0, 5]])
def test_costs_and_losses_against_the_formulas(
    counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, targets = random_outputs(len(counts), 0), random_targets(counts, 1)
    criterion = make_criterion()
    generator = torch.Generator().manual_seed(2)
    matching_points = torch.rand(len(counts), POINTS, 2, generator=generator)
    # One set for each pair of a matched object and a frame, equal in all layers.
    loss_points = torch.rand(100, POINTS, 2, generator=generator)
    monkeypatch.setattr(
        criterion.matcher.mask_costs, "draw_points", lambda number, _: matching_points[:number]
    )
    monkeypatch.setattr(
        criterion.mask_losses,
        "draw_points",
        lambda _, images, __: loss_points[: images.shape[1]].expand(len(images), -1, -1, -1),
    )
    layers = [*outputs["aux_outputs"], outputs]
    expected_costs = [
        [
            costs_of_clip(layer, clip, target, matching_points[clip])
            for clip, target in enumerate(targets)
        ]
        for layer in layers
    ]

    costs = criterion.matcher.compute_costs(
        layers, [t["labels"] for t in targets], torch.cat([t["masks"] for t in targets])
    )
    np.testing.assert_allclose(
        costs.numpy(), np.stack([np.concatenate(layer, 1) for layer in expected_costs]), atol=1e-5
    )

    counted = criterion.normalisers(counts, QUERIES)
    losses = criterion(outputs, targets, average_over_processes(counted, "cpu"))
    for layer, of_clips, suffix in zip(layers, expected_costs, ("_0", ""), strict=True):
        mask_sum = dice_sum = 0.0
        pair = 0
        for clip, (target, matrix) in enumerate(zip(targets, of_clips, strict=True)):
            for query, number in zip(*linear_sum_assignment(matrix), strict=True):
                for frame in range(FRAMES):
                    points = loss_points[pair * FRAMES + frame]
                    predicted = sampled(layer["pred_masks"][clip, query, frame][None], points)
                    masks = sampled(target["masks"][number, frame][None], points)
                    mask_sum += cross_entropy(predicted, masks)
                    dice_sum += dice(predicted, masks)
                pair += 1
        # Divided by the number of objects, matched or not; frames are not counted.
        assert float(losses["loss_mask" + suffix]) == pytest.approx(
            mask_sum / sum(counts), rel=1e-5
        )
        assert float(losses["loss_dice" + suffix]) == pytest.approx(
            dice_sum / sum(counts), rel=1e-5
        )


def test_an_object_is_matched_by_its_whole_clip() -> None:
    """Two queries agree in the first frame; only one follows the object into the second."""
    masks = torch.zeros(2, 2, 16, 16, dtype=torch.bool)
    masks[0, 0, :8], masks[1, 0, :8] = True, True
    masks[0, 1, :, :8], masks[1, 1, :, 8:] = True, True
    logits = 20 * masks.float()[None] - 10
    layers = [{"pred_logits": torch.zeros(1, 2, CLASSES + 1), "pred_masks": logits.flip(1)}]
    torch.manual_seed(0)
    matcher = HungarianMatcher(mask_costs=ClipMaskCosts(200), **WEIGHTS)
    costs = matcher.compute_costs(layers, [torch.tensor([1, 1])], masks)
    ((pairs,),) = matcher(costs, [2])
    assert [index.tolist() for index in pairs] == [[0, 1], [1, 0]]


def test_clips_without_objects() -> None:
    outputs = random_outputs(2, 0)
    no_masks = torch.zeros(0, FRAMES, 10, 18, dtype=torch.bool)
    targets = [{"labels": torch.zeros(0, dtype=torch.int64), "masks": no_masks}] * 2
    for layer in (outputs, *outputs["aux_outputs"]):
        for value in layer.values():
            if isinstance(value, Tensor):
                value.requires_grad_()
    criterion = make_criterion()
    losses = criterion(
        outputs, targets, average_over_processes(criterion.normalisers([0, 0], QUERIES), "cpu")
    )
    assert losses["loss_mask"] == losses["loss_dice_0"] == 0
    sum(losses.values()).backward()
    assert outputs["pred_masks"].grad is not None


def test_a_nan_is_seen() -> None:
    outputs, targets = random_outputs(1, 0), random_targets([2], 1)
    outputs["pred_masks"][0, 1, 2, 3, 3] = np.nan
    criterion = make_criterion()
    criterion.matcher.mask_costs.num_points = 500
    normalisers = average_over_processes(criterion.normalisers([2], QUERIES), "cpu")
    losses = criterion(outputs, targets, normalisers)
    assert losses["loss_mask"].isnan()
    assert losses["loss_mask_0"].isfinite()
