"""Mask losses and costs over all pixels, compared with formulas and Hugging Face's MaskFormer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers.models.maskformer import modeling_maskformer as hugging_face

from ddep.modeling.criterion import SetCriterion
from ddep.modeling.mask_costs import DenseMaskCosts
from ddep.modeling.mask_losses import DenseMaskLosses
from ddep.modeling.matcher import HungarianMatcher
from tests.modeling.test_criterion import (
    CLASSES,
    DeviceTensor,
    leaves,
    mean_losses,
    random_outputs,
    random_targets,
    to_device,
)

COSTS = {"cost_class": 1.0, "cost_mask": 20.0, "cost_dice": 2.0}


def make_criterion(num_aux_outputs: int = 2) -> SetCriterion:
    return SetCriterion(
        CLASSES,
        matcher=HungarianMatcher(mask_costs=DenseMaskCosts(), **COSTS),
        mask_losses=DenseMaskLosses(),
        class_weight=1.0,
        mask_weight=20.0,
        dice_weight=2.0,
        no_object_weight=0.1,
        num_aux_outputs=num_aux_outputs,
    )


@pytest.mark.parametrize("counts", [[4, 0, 6], [1, 10, 2]])
def test_losses_and_gradients_against_hugging_face(counts: list[int]) -> None:
    outputs, targets = random_outputs(2, 3, 8, seed=1), random_targets(counts, seed=2)
    criterion = make_criterion()
    matcher = hugging_face.MaskFormerHungarianMatcher(**COSTS)
    reference = hugging_face.MaskFormerLoss(CLASSES, matcher, {}, eos_coef=0.1)
    expected = reference(
        outputs["pred_masks"],
        outputs["pred_logits"],
        [target["masks"].float() for target in targets],
        [target["labels"] for target in targets],
        [
            {"masks_queries_logits": o["pred_masks"], "class_queries_logits": o["pred_logits"]}
            for o in outputs["aux_outputs"]
        ],
    )
    expected = {name.replace("cross_entropy", "ce"): loss for name, loss in expected.items()}

    losses = mean_losses(criterion, outputs, targets)

    assert losses.keys() == expected.keys() == criterion.weight_dict.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], atol=1e-5, rtol=0)
    gradients = torch.autograd.grad(sum(losses.values()), leaves(outputs))
    references = torch.autograd.grad(sum(expected.values()), leaves(outputs))
    for gradient, gradient_expected in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, gradient_expected, atol=1e-6, rtol=1e-4)


def test_pairs_follow_the_order_of_rows() -> None:
    """Each prediction is compared with its own target, in every layer."""
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[0, :4], masks[1, :, 4:], masks[2] = True, True, True
    rows = torch.tensor([[2, 0], [1, 2]])
    logits = [40.0 * masks[row].float() - 20 for row in rows]
    queries = torch.arange(2).expand(2, -1)
    pairs = [layer[None] for layer in logits], torch.zeros_like(queries), queries, masks
    for losses in DenseMaskLosses()(*pairs, rows):
        torch.testing.assert_close(losses, torch.zeros(2, 2))
    for losses in DenseMaskLosses()(*pairs, rows.flip(0)):
        assert (losses > 0.1).all()


def test_batch_without_targets() -> None:
    outputs = random_outputs(2, 2, 4, seed=7)
    losses = mean_losses(make_criterion(), outputs, random_targets([0, 0], seed=8))
    for suffix in ("_0", "_1", ""):
        assert losses[f"loss_mask{suffix}"].item() == losses[f"loss_dice{suffix}"].item() == 0
    sum(losses.values()).backward()
    assert all(leaf.grad is not None and leaf.grad.isfinite().all() for leaf in leaves(outputs))


def test_losses_are_float32_under_autocast() -> None:
    outputs, targets = random_outputs(0, 2, 4, seed=9), random_targets([2, 1], seed=10)
    halves: dict[str, Tensor | list] = {
        name: outputs[name].detach().bfloat16() for name in ("pred_logits", "pred_masks")
    }
    criterion = make_criterion(num_aux_outputs=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = mean_losses(criterion, halves, targets)
    wide = mean_losses(criterion, {name: value.float() for name, value in halves.items()}, targets)
    for name, loss in losses.items():
        assert loss.dtype == torch.float32
        assert torch.equal(loss, wide[name])


def test_costs_reach_the_host_in_one_copy(reference_operators: str) -> None:
    outputs, targets = random_outputs(3, 3, 6, seed=11), random_targets([2, 0, 4], seed=12)
    criterion = make_criterion(num_aux_outputs=3)
    expected = mean_losses(criterion, outputs, targets)
    criterion.empty_weight = to_device(criterion.empty_weight)
    DeviceTensor.copies = 0
    losses = mean_losses(criterion, to_device(outputs), to_device(targets))
    assert DeviceTensor.copies == 1
    for name, loss in losses.items():
        assert torch.equal(loss.as_subclass(torch.Tensor), expected[name])
