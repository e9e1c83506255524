"""Losses of frames with track queries, compared with loops over queries."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ddep.modeling.mask_costs import DenseMaskCosts
from ddep.modeling.mask_losses import DenseMaskLosses
from ddep.modeling.matcher import HungarianMatcher
from ddep.modeling.normalisers import average_over_processes
from ddep.modeling.track_criterion import TrackCriterion
from ddep.modeling.track_plan import TrackPlan
from tests.modeling.test_criterion import CLASSES, WEIGHTS, random_outputs, random_targets

LEARNED = 4
NO_OBJECT = 0.1
# Two images: a track query without an object between two with one, a false one; and padding.
TRACKED = [[2, -1, 0, -1], [-1]]
COUNTS = [4, 2]


def make_criterion() -> TrackCriterion:
    matcher = HungarianMatcher(
        mask_costs=DenseMaskCosts(), cost_class=2.0, cost_mask=5.0, cost_dice=3.0
    )
    return TrackCriterion(
        CLASSES,
        matcher=matcher,
        mask_losses=DenseMaskLosses(),
        **WEIGHTS,
        no_object_weight=NO_OBJECT,
        num_aux_outputs=1,
    )


def make_targets(counts: list[int], tracked: list[list[int]]) -> list[dict[str, Tensor]]:
    targets = random_targets(counts, seed=1)
    for target, of_image in zip(targets, tracked, strict=True):
        target["tracked"] = torch.tensor(of_image, dtype=torch.int64)
    return targets


def plain_pairs(
    outputs: dict[str, Tensor], target: dict[str, Tensor], criterion: TrackCriterion
) -> dict[int, int]:
    """The target of each query that has one; the learned queries' by trying everything."""
    costs = criterion.matcher.compute_costs([outputs], [target["labels"]], target["masks"])[0]
    pairs = {
        LEARNED + place: wanted
        for place, wanted in enumerate(target["tracked"].tolist())
        if wanted >= 0
    }
    new = [place for place in range(len(target["labels"])) if place not in pairs.values()]
    tries = [
        dict(zip(queries, new, strict=True)) for queries in permutations(range(LEARNED), len(new))
    ]
    best = min(tries, key=lambda pairs: sum(float(costs[q, t]) for q, t in pairs.items()))
    return pairs | best


def plain_losses(
    outputs: dict[str, Tensor], targets: list[dict[str, Tensor]], criterion: TrackCriterion
) -> dict[str, float]:
    """The losses of one layer, query by query, in float64."""
    ce = weights = mask_loss = dice_loss = 0.0
    for image, target in enumerate(targets):
        of_image = {name: value[image : image + 1] for name, value in outputs.items()}
        pairs = plain_pairs(of_image, target, criterion)
        for query in range(LEARNED + len(target["tracked"])):
            wanted = int(target["labels"][pairs[query]]) if query in pairs else CLASSES
            weight = NO_OBJECT if query < LEARNED and query not in pairs else 1.0
            logits = of_image["pred_logits"][0, query].double()
            ce += weight * float(-logits.log_softmax(0)[wanted])
            weights += weight
            if query not in pairs:
                continue
            truth = target["masks"][pairs[query]].double()
            mask = F.interpolate(
                of_image["pred_masks"][:, query : query + 1].double(),
                truth.shape,
                mode="bilinear",
                align_corners=False,
            )[0, 0]
            probability = mask.sigmoid()
            right = torch.where(truth > 0, probability, 1 - probability)
            balance = torch.where(truth > 0, 0.25, 0.75)
            mask_loss += float((-balance * (1 - right) ** 2 * right.log()).mean())
            both = 2 * float((probability * truth).sum()) + 1
            dice_loss += 1 - both / (float(probability.sum() + truth.sum()) + 1)
    count = sum(len(target["labels"]) for target in targets)
    return {
        "loss_ce": ce / weights,
        "loss_mask": mask_loss / count,
        "loss_dice": dice_loss / count,
    }


def plans(tracked: list[list[int]]) -> list[TrackPlan]:
    """Plans with these targets, the last of which is false."""
    return [TrackPlan(list(range(len(t) - 1)), t[:-1], [0] * len(t[-1:])) for t in tracked]


def losses_of(
    criterion: TrackCriterion, outputs: dict[str, Any], targets: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    counts = criterion.track_normalisers(
        plans([target["tracked"].tolist() for target in targets]),
        [len(target["labels"]) for target in targets],
        LEARNED,
    )
    return criterion(outputs, targets, average_over_processes(counts, "cpu"))


def test_losses_are_those_of_a_loop() -> None:
    criterion = make_criterion()
    outputs = random_outputs(1, 2, LEARNED + 4, seed=3)
    targets = make_targets(COUNTS, TRACKED)
    found = losses_of(criterion, outputs, targets)
    for suffix, layer in (("_0", outputs["aux_outputs"][0]), ("", outputs)):
        of_layer = {name: layer[name].detach() for name in ("pred_logits", "pred_masks")}
        for name, value in plain_losses(of_layer, targets, criterion).items():
            assert found[name + suffix].item() == pytest.approx(value, rel=1e-5), name + suffix


def test_padding_learns_nothing() -> None:
    criterion = make_criterion()
    outputs = random_outputs(1, 2, LEARNED + 4, seed=3)
    sum(losses_of(criterion, outputs, make_targets(COUNTS, TRACKED)).values()).backward()
    for layer in (outputs, *outputs["aux_outputs"]):
        for name in ("pred_logits", "pred_masks"):
            assert not layer[name].grad[1, LEARNED + 1 :].any()
        assert layer["pred_logits"].grad[:, : LEARNED + 1].abs().amin() > 0


def test_an_object_with_a_track_query_is_no_target_of_others() -> None:
    """However well a learned query predicts it."""
    criterion = make_criterion()
    outputs = random_outputs(0, 1, LEARNED + 1, seed=4)
    targets = make_targets([1], [[0]])
    with torch.no_grad():
        outputs["pred_logits"][0, 0, targets[0]["labels"]] = 9.0
    losses_of(criterion, outputs, targets)["loss_mask"].backward()
    gradient = outputs["pred_masks"].grad[0].flatten(1).abs().sum(1)
    assert gradient[LEARNED] > 0
    assert not gradient[:LEARNED].any()


def test_more_new_objects_than_learned_queries() -> None:
    criterion = make_criterion()
    targets = make_targets([LEARNED + 3], [[1, -1]])
    outputs = random_outputs(0, 1, LEARNED + 2, seed=5)
    counts = criterion.track_normalisers(plans([[1, -1]]), [LEARNED + 3], LEARNED)
    assert counts == {"masks": LEARNED + 3, "class_weights": LEARNED + 2}
    assert all(loss.isfinite() for loss in losses_of(criterion, outputs, targets).values())


@pytest.mark.parametrize("tracked", [[[], []], [[-1], []]])
def test_images_without_objects_or_track_queries(tracked: list[list[int]]) -> None:
    criterion = make_criterion()
    outputs = random_outputs(0, 2, LEARNED + max(map(len, tracked)), seed=6)
    targets = make_targets([0, 0], tracked)
    counts = criterion.track_normalisers(plans(tracked), [0, 0], LEARNED)
    learned_weight = 2 * LEARNED * NO_OBJECT
    assert counts == {"masks": 0, "class_weights": learned_weight + sum(map(len, tracked))}
    assert losses_of(criterion, outputs, targets)["loss_ce"] > 0
