"""NaN and infinity do not stop the computation of the losses, and always show in them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ddep.modeling.criterion import SetCriterion
from tests.modeling.meta_arch.batches import DETR, KINDS, PER_PIXEL, model_and_batch
from tests.modeling.test_criterion import (
    make_criterion,
    mean_losses,
    random_outputs,
    random_targets,
)
from tests.modeling.test_dense_masks import make_criterion as make_dense_criterion

VALUES = pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
CRITERIA = pytest.mark.parametrize("make", [make_criterion, make_dense_criterion])


def layers_that_are_not_finite(losses: dict[str, Tensor]) -> list[int]:
    """Those of three layers whose losses are not finite."""
    return [
        layer
        for layer, suffix in enumerate(["_0", "_1", ""])
        if not all(losses[f"{name}{suffix}"].isfinite() for name in ("loss_ce", "loss_mask"))
    ]


def outputs_with(value: float, layer: int, key: str, index: Any) -> dict[str, Any]:
    outputs = random_outputs(2, 2, 6, seed=1)
    layers = [*outputs["aux_outputs"], outputs]
    with torch.no_grad():
        layers[layer][key][index] = value
    return outputs


@CRITERIA
@VALUES
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("key", ["pred_logits", "pred_masks"])
@pytest.mark.parametrize("counts", [[2, 3], [6, 0]])
def test_query_that_is_not_finite_shows_in_the_losses_of_its_layer(
    make: type[SetCriterion], value: float, layer: int, key: str, counts: list[int]
) -> None:
    """Whether it is matched or not: 2 of the 6 queries are, or all."""
    for query in range(6):
        outputs = outputs_with(value, layer, key, (0, query))
        losses = mean_losses(make(), outputs, random_targets(counts, seed=2))
        assert layers_that_are_not_finite(losses) == [layer]


@CRITERIA
@VALUES
def test_costs_that_are_not_finite_show_in_the_losses(make: Any, value: float) -> None:
    """Only one pixel is bad: whether costs are finite depends on the masks and on chance."""
    targets = random_targets([2, 3], seed=2)
    seen = set()
    for row, column, query in [(0, 0, 1), (2, 3, 2), (5, 8, 3), (3, 3, 5)]:
        criterion = make()
        outputs = outputs_with(value, 1, "pred_masks", (1, query, row, column))
        compute, found = criterion.matcher.compute_costs, []
        criterion.matcher.compute_costs = lambda *a, c=compute, f=found: f.append(c(*a)) or f[-1]
        losses = mean_losses(criterion, outputs, targets)
        finite = bool(found[0].isfinite().all())
        seen.add(finite)
        if not finite:
            assert layers_that_are_not_finite(losses) == [1]
    assert False in seen


@VALUES
@pytest.mark.parametrize("label", [0, 1])
def test_minus_infinity_in_one_class_is_a_probability_of_zero(value: float, label: int) -> None:
    """The loss is infinite only if that class is the right one."""
    outputs = outputs_with(value, 0, "pred_logits", (slice(None), slice(None), 3))
    targets = random_targets([6, 6], seed=2)
    for target in targets:
        target["labels"] = torch.full((6,), 3 if label else 1)
    losses = mean_losses(make_criterion(), outputs, targets)
    expected = [0] if value != float("-inf") or label else []
    assert layers_that_are_not_finite(losses) == expected


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[2], DETR, *KINDS[-2:], PER_PIXEL], ids=str)
@pytest.mark.parametrize(
    "pixel_decoder",
    ["MSDeformAttnPixelDecoder", "BasePixelDecoder", "TransformerEncoderPixelDecoder"],
)
@VALUES
def test_pixel_that_is_not_finite_reaches_the_loss(
    kind: dict[str, Any], pixel_decoder: str, value: float
) -> None:
    """It passes windows, sampling and masked attention, which use only a part of their input.

    The image has no targets, and the others in its batch are fine.
    """
    model, batch = model_and_batch(kind, pixel_decoder)
    image = batch[1]["image"].double()
    batch[1]["image"] = image
    for place in [(0, 0, 0), (1, 39, 63), (2, 20, 31)]:
        batch[1]["image"] = image.clone()
        batch[1]["image"][place] = value
        losses = model(batch[:3])
        [name] = {"loss_denoise", "loss_ce", "loss_sem_seg"} & losses.keys()
        assert not losses[name].isfinite()
