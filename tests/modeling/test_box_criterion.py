"""DETR's matching and losses, compared with loops in float64 and with Hugging Face's."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import Tensor
from transformers import DetrConfig
from transformers.loss.loss_for_object_detection import HungarianMatcher, ImageLoss

from ddep.modeling.box_criterion import BoxCriterion
from ddep.modeling.box_matcher import BoxMatcher
from ddep.modeling.normalisers import average_over_processes

CLASSES = 5
WEIGHTS = {"class": 1.0, "l1": 5.0, "giou": 2.0}
NO_OBJECT = 0.1
NAMES = ("loss_ce", "loss_bbox", "loss_giou")


def make_criterion(num_aux_outputs: int = 2) -> BoxCriterion:
    matcher = BoxMatcher(**{f"cost_{name}": weight for name, weight in WEIGHTS.items()})
    return BoxCriterion(
        CLASSES,
        matcher=matcher,
        **{f"{name}_weight": weight for name, weight in WEIGHTS.items()},
        no_object_weight=NO_OBJECT,
        num_aux_outputs=num_aux_outputs,
    )


def random_boxes(*shape: int, generator: torch.Generator) -> Tensor:
    """cxcywh, also small and thin ones, and some that reach beyond the image."""
    centres = torch.rand(*shape, 2, generator=generator)
    return torch.cat([centres, 0.001 + torch.rand(*shape, 2, generator=generator) ** 3], dim=-1)


def random_outputs(num_aux_outputs: int, batch: int, queries: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    layers = [
        {
            "pred_logits": 2 * torch.randn(batch, queries, CLASSES + 1, generator=generator),
            "pred_boxes": random_boxes(batch, queries, generator=generator),
        }
        for _ in range(num_aux_outputs + 1)
    ]
    for outputs in layers:
        for value in outputs.values():
            value.requires_grad_()
    return {**layers[-1], "aux_outputs": layers[:-1]}


def random_targets(counts: list[int], seed: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "labels": torch.randint(CLASSES, (count,), generator=generator),
            "boxes": random_boxes(count, generator=generator),
        }
        for count in counts
    ]


def mean_losses(
    criterion: BoxCriterion, outputs: dict[str, Any], targets: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The losses, averaged over only these images."""
    counts = [len(target["labels"]) for target in targets]
    counts = criterion.normalisers(counts, outputs["pred_logits"].shape[1])
    return criterion(outputs, targets, average_over_processes(counts, "cpu"))


def giou(one: list[float], other: list[float]) -> float:
    """Generalised IoU of two cxcywh boxes, from the definition (arXiv 1902.09630)."""
    corners = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in (one, other)]
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = corners
    intersection = max(0, min(ax1, bx1) - max(ax0, bx0)) * max(0, min(ay1, by1) - max(ay0, by0))
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - intersection
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return intersection / union - (hull - union) / hull


def pair_terms(
    outputs: dict[str, Tensor], target: dict[str, Tensor], image: int, query: int, index: int
) -> tuple[float, float, float]:
    """Minus the class's probability, the L1 distance and the generalised IoU of a pair."""
    probabilities = outputs["pred_logits"][image, query].detach().double().softmax(0)
    box = outputs["pred_boxes"][image, query].detach().double().tolist()
    other = target["boxes"][index].double().tolist()
    distance = sum(abs(a - b) for a, b in zip(box, other, strict=True))
    return -probabilities[target["labels"][index]].item(), distance, giou(box, other)


def expected_layer(
    outputs: dict[str, Tensor], targets: list[dict[str, Tensor]]
) -> tuple[dict[str, float], list[list[tuple[int, int]]]]:
    """Losses of a layer and the matched (query, target) of each image, by exhaustive search."""
    _, num_queries, _ = outputs["pred_logits"].shape
    cross_entropy = weights = distances = overlaps = 0.0
    pairs_of_images = []
    for image, target in enumerate(targets):
        count = len(target["labels"])
        terms = {
            (q, t): pair_terms(outputs, target, image, q, t)
            for q in range(num_queries)
            for t in range(count)
        }
        costs = {
            pair: WEIGHTS["class"] * c + WEIGHTS["l1"] * d - WEIGHTS["giou"] * o
            for pair, (c, d, o) in terms.items()
        }
        matchings = [
            [(query, index) for index, query in enumerate(queries)]
            for queries in permutations(range(num_queries), count)
        ]
        best = min(matchings, key=lambda pairs: sum(costs[pair] for pair in pairs))
        pairs_of_images.append(best)
        classes = dict.fromkeys(range(num_queries), CLASSES)
        for query, index in best:
            classes[query] = target["labels"][index].item()
            distances += terms[query, index][1]
            overlaps += 1 - terms[query, index][2]
        log_probabilities = outputs["pred_logits"][image].detach().double().log_softmax(-1)
        for query, label in classes.items():
            weight = NO_OBJECT if label == CLASSES else 1.0
            cross_entropy -= weight * log_probabilities[query, label].item()
            weights += weight
    number = sum(len(target["labels"]) for target in targets)
    losses = {
        "loss_ce": cross_entropy / weights,
        "loss_bbox": distances / number,
        "loss_giou": overlaps / number,
    }
    return losses, pairs_of_images


def test_losses_against_loops_in_float64() -> None:
    outputs, targets = random_outputs(2, 3, 5, seed=1), random_targets([2, 0, 3], seed=2)
    criterion = make_criterion()
    found = mean_losses(criterion, outputs, targets)
    layers = [*outputs["aux_outputs"], outputs]
    assert found.keys() == criterion.weight_dict.keys()
    assert len(found) == 9
    for suffix, layer in zip(["_0", "_1", ""], layers, strict=True):
        expected, _ = expected_layer(layer, targets)
        for name in NAMES:
            assert found[name + suffix].item() == pytest.approx(expected[name], rel=1e-5)
            weight = WEIGHTS[{"ce": "class", "bbox": "l1", "giou": "giou"}[name[5:]]]
            assert criterion.weight_dict[name + suffix] == weight


@pytest.mark.parametrize("counts", [[4, 0, 6], [1, 8, 2]])
def test_losses_and_gradients_against_hugging_face(counts: list[int]) -> None:
    outputs, targets = random_outputs(0, 3, 8, seed=3), random_targets(counts, seed=4)
    found = mean_losses(make_criterion(0), outputs, targets)
    matcher = HungarianMatcher(class_cost=1.0, bbox_cost=5.0, giou_cost=2.0)
    losses = ["labels", "boxes"]
    theirs = ImageLoss(matcher, CLASSES, NO_OBJECT, losses)
    renamed = [{"class_labels": t["labels"], "boxes": t["boxes"]} for t in targets]
    copies = {
        "logits": outputs["pred_logits"].detach().clone().requires_grad_(),
        "pred_boxes": outputs["pred_boxes"].detach().clone().requires_grad_(),
    }
    expected = theirs(copies, renamed)
    assert DetrConfig().eos_coefficient == NO_OBJECT
    for name in NAMES:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)
    sum(found.values()).backward()
    sum(expected[name] for name in NAMES).backward()
    for ours, other in (("pred_logits", "logits"), ("pred_boxes", "pred_boxes")):
        torch.testing.assert_close(outputs[ours].grad, copies[other].grad, rtol=1e-4, atol=1e-6)


def test_more_objects_than_queries() -> None:
    outputs, targets = random_outputs(0, 1, 2, seed=5), random_targets([4], seed=6)
    criterion = make_criterion(0)
    counts = criterion.normalisers([4], 2)
    assert counts == {"boxes": 4, "class_weights": 2}
    losses = mean_losses(criterion, outputs, targets)
    assert all(loss.isfinite() for loss in losses.values())


def test_images_without_objects_have_gradients_for_everything() -> None:
    outputs = random_outputs(1, 2, 3, seed=7)
    losses = mean_losses(make_criterion(1), outputs, random_targets([0, 0], seed=8))
    assert losses["loss_bbox"] == losses["loss_giou"] == 0
    sum(losses.values()).backward()
    for layer in [*outputs["aux_outputs"], outputs]:
        assert (layer["pred_logits"].grad != 0).any()
        assert (layer["pred_boxes"].grad == 0).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("key", ["pred_logits", "pred_boxes"])
@pytest.mark.parametrize("counts", [[2, 3], [6, 0]])
def test_query_that_is_not_finite_shows_in_the_losses_of_its_layer(
    value: float, key: str, counts: list[int]
) -> None:
    """Whether it is matched or not: 2 of the 6 queries are, or all."""
    for query in range(6):
        outputs = random_outputs(2, 2, 6, seed=1)
        with torch.no_grad():
            outputs["aux_outputs"][1][key][0, query] = value
        losses = mean_losses(make_criterion(), outputs, random_targets(counts, seed=2))
        bad = {name for name, loss in losses.items() if not loss.isfinite()}
        assert bad
        assert {name[-2:] for name in bad} == {"_1"}


def test_errors_are_logged_in_training() -> None:
    outputs, targets = random_outputs(1, 2, 4, seed=9), random_targets([2, 1], seed=10)
    mean_losses(make_criterion(1), outputs, targets)  # nothing to log to
    with EventStorage() as storage:
        mean_losses(make_criterion(1), outputs, targets)
    logged = {name: value for name, (value, _) in storage.latest().items()}
    assert logged.keys() == {"cardinality_error", "class_error"}
    predicted = outputs["pred_logits"].argmax(-1).tolist()
    _, pairs = expected_layer(outputs, targets)
    counts = [sum(label != CLASSES for label in of_image) for of_image in predicted]
    errors = [abs(count - len(t["labels"])) for count, t in zip(counts, targets, strict=True)]
    assert logged["cardinality_error"] == pytest.approx(sum(errors) / 2)
    wrong = [
        predicted[image][query] != targets[image]["labels"][index].item()
        for image, of_image in enumerate(pairs)
        for query, index in of_image
    ]
    assert logged["class_error"] == pytest.approx(100 * sum(wrong) / 3)
    with EventStorage() as storage:
        mean_losses(make_criterion(1), outputs, random_targets([0, 0], seed=11))
    assert storage.latest().keys() == {"cardinality_error"}
