"""The losses, compared with formulas and Hugging Face's loss, and their waits for the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.mask2former import modeling_mask2former as hugging_face

from ddep.modeling.criterion import SetCriterion
from ddep.modeling.mask_costs import PointMaskCosts
from ddep.modeling.mask_losses import PointMaskLosses
from ddep.modeling.matcher import HungarianMatcher
from ddep.modeling.normalisers import average_over_processes
from tests.modeling.test_matcher import match

CLASSES = 5
POINTS = 40
WEIGHTS = {"class_weight": 2.0, "mask_weight": 5.0, "dice_weight": 3.0}
NAMES = ("loss_ce", "loss_mask", "loss_dice")


def point_losses(num_points: int = POINTS, importance: float = 0.75) -> PointMaskLosses:
    return PointMaskLosses(
        num_points=num_points, oversample_ratio=3.0, importance_sample_ratio=importance
    )


def make_criterion(num_aux_outputs: int = 2) -> SetCriterion:
    matcher = HungarianMatcher(
        mask_costs=PointMaskCosts(POINTS), cost_class=2.0, cost_mask=5.0, cost_dice=3.0
    )
    return SetCriterion(
        CLASSES,
        matcher=matcher,
        mask_losses=point_losses(),
        **WEIGHTS,
        no_object_weight=0.1,
        num_aux_outputs=num_aux_outputs,
    )


def random_outputs(num_aux_outputs: int, batch: int, queries: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    layers = [
        {
            "pred_logits": 2 * torch.randn(batch, queries, CLASSES + 1, generator=generator),
            "pred_masks": 3 * torch.randn(batch, queries, 6, 9, generator=generator),
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
            "masks": torch.rand(count, 24, 36, generator=generator) > 0.6,
        }
        for count in counts
    ]


def leaves(outputs: dict[str, Any]) -> list[Tensor]:
    layers = [*outputs["aux_outputs"], outputs]
    return [layer[name] for layer in layers for name in ("pred_logits", "pred_masks")]


def mean_losses(
    criterion: SetCriterion, outputs: dict[str, Any], targets: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The losses, averaged over only these images."""
    counts = [len(target["labels"]) for target in targets]
    counts = criterion.normalisers(counts, outputs["pred_logits"].shape[1])
    return criterion(outputs, targets, average_over_processes(counts, "cpu"))


def fix_points(criterion: SetCriterion, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, Tensor]:
    """Fix the points for matching, per image, and for losses, per pair and equal in all layers."""
    generator = torch.Generator().manual_seed(0)
    matching = torch.rand(8, POINTS, 2, generator=generator)
    losses = torch.rand(64, POINTS, 2, generator=generator)

    def draw(mask_logits: list[Tensor], images: Tensor, queries: Tensor) -> Tensor:
        return losses[: images.shape[1]].expand(len(images), -1, -1, -1)

    monkeypatch.setattr(
        criterion.matcher.mask_costs, "draw_points", lambda num_images, _: matching[:num_images]
    )
    monkeypatch.setattr(criterion.mask_losses, "draw_points", draw)
    return matching, losses


@pytest.mark.parametrize("counts", [[4, 0, 6], [1, 10, 2]])
def test_losses_and_gradients_against_hugging_face(
    counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs, targets = random_outputs(2, 3, 8, seed=1), random_targets(counts, seed=2)
    criterion = make_criterion()
    matching, loss_points = fix_points(criterion, monkeypatch)
    config = hugging_face.Mask2FormerConfig(
        num_labels=CLASSES,
        class_weight=2.0,
        mask_weight=5.0,
        dice_weight=3.0,
        no_object_weight=0.1,
        train_num_points=POINTS,
    )
    reference = hugging_face.Mask2FormerLoss(config, weight_dict={})
    draws = iter([*matching[:3, None]] * 3)
    monkeypatch.setattr(torch, "rand", lambda *size, **kwargs: next(draws))
    monkeypatch.setattr(
        reference, "sample_points_using_uncertainty", lambda logits, *_: loss_points[: len(logits)]
    )
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
        torch.testing.assert_close(loss, expected[name], atol=1e-5, rtol=1e-5)
    gradients = torch.autograd.grad(sum(losses.values()), leaves(outputs))
    references = torch.autograd.grad(sum(expected.values()), leaves(outputs))
    for gradient, gradient_expected in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, gradient_expected, atol=1e-5, rtol=1e-5)


def test_losses_against_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs, targets = random_outputs(0, 2, 5, seed=3), random_targets([2, 3], seed=4)
    criterion = make_criterion(num_aux_outputs=0)
    _, points = fix_points(criterion, monkeypatch)
    [matches] = match(criterion.matcher, [outputs], targets)
    losses = mean_losses(criterion, outputs, targets)

    def sample(mask: Tensor, k: int) -> np.ndarray:
        grid = (2 * points[k].double() - 1)[None, :, None]
        return F.grid_sample(mask[None, None].double(), grid, align_corners=False).flatten().numpy()

    weighted, weights, cross_entropy, dice, k = 0.0, 0.0, 0.0, 0.0, 0
    for image, (queries, matched) in enumerate(matches):
        classes = np.full(5, CLASSES)
        for q, t in zip(queries.tolist(), matched.tolist(), strict=True):
            classes[q] = targets[image]["labels"][t]
            p = 1 / (1 + np.exp(-sample(outputs["pred_masks"][image, q].detach(), k)))
            m = sample(targets[image]["masks"][t], k)
            cross_entropy -= (m * np.log(p) + (1 - m) * np.log(1 - p)).mean()
            dice += 1 - (2 * (p * m).sum() + 1) / (p.sum() + m.sum() + 1)
            k += 1
        for q, label in enumerate(classes):
            logits = outputs["pred_logits"][image, q].detach().double().numpy()
            weight = 0.1 if label == CLASSES else 1.0
            weighted -= weight * np.log(np.exp(logits[label]) / np.exp(logits).sum())
            weights += weight
    assert losses["loss_ce"].item() == pytest.approx(weighted / weights, abs=1e-5)
    assert losses["loss_mask"].item() == pytest.approx(cross_entropy / 5, abs=1e-5)
    assert losses["loss_dice"].item() == pytest.approx(dice / 5, abs=1e-5)


def test_weights_have_the_names_of_the_losses() -> None:
    criterion = make_criterion(num_aux_outputs=1)
    weights = dict(zip(NAMES, WEIGHTS.values(), strict=True))
    assert criterion.weight_dict == {**weights, **{f"{n}_0": w for n, w in weights.items()}}
    assert list(criterion.state_dict()) == ["empty_weight"]
    torch.testing.assert_close(criterion.empty_weight, torch.tensor([1.0] * CLASSES + [0.1]))


def test_without_deep_supervision_only_the_last_layer_counts() -> None:
    outputs = random_outputs(3, 1, 4, seed=5)
    losses = mean_losses(make_criterion(num_aux_outputs=0), outputs, random_targets([2], seed=6))
    assert tuple(losses) == NAMES
    sum(losses.values()).backward()
    assert outputs["pred_masks"].grad is not None
    assert all(layer["pred_masks"].grad is None for layer in outputs["aux_outputs"])


def test_batch_without_targets() -> None:
    outputs = random_outputs(2, 2, 4, seed=7)
    losses = mean_losses(make_criterion(), outputs, random_targets([0, 0], seed=8))
    for suffix, layer in zip(("_0", "_1", ""), [*outputs["aux_outputs"], outputs], strict=True):
        assert losses[f"loss_mask{suffix}"].item() == losses[f"loss_dice{suffix}"].item() == 0
        no_object = -layer["pred_logits"].detach().log_softmax(-1)[..., -1].mean()
        torch.testing.assert_close(losses[f"loss_ce{suffix}"].detach(), no_object)
    sum(losses.values()).backward()
    assert all(leaf.grad is not None for leaf in leaves(outputs))


def test_losses_are_float32_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs, targets = random_outputs(0, 2, 4, seed=9), random_targets([2, 1], seed=10)
    halves = {name: outputs[name].detach().bfloat16() for name in ("pred_logits", "pred_masks")}
    criterion = make_criterion(num_aux_outputs=0)
    fix_points(criterion, monkeypatch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = mean_losses(criterion, halves, targets)
    wide = mean_losses(criterion, {name: value.float() for name, value in halves.items()}, targets)
    for name in NAMES:
        assert losses[name].dtype == torch.float32
        assert torch.equal(losses[name], wide[name])


@pytest.mark.parametrize(("importance", "expected"), [(0.75, 0.325), (0.0, 0.1)])
def test_points_lie_where_predictions_are_uncertain(importance: float, expected: float) -> None:
    torch.manual_seed(0)
    logits = torch.full((1, 1, 4, 200), -9.0)
    logits[..., 40:60] = 0.0  # a tenth of the image, with candidates for 0.3 of the points
    first = torch.zeros(1, 1, dtype=torch.int64)
    points = point_losses(4000, importance).draw_points([logits], first, first)
    assert points.shape == (1, 1, 4000, 2)
    in_strip = ((points[..., 0] > 0.2) & (points[..., 0] < 0.3)).float().mean().item()
    assert in_strip == pytest.approx(expected, abs=0.02)


class DeviceTensor(torch.Tensor):
    """Stands in for a tensor on an accelerator: counts copies to the host, refuses hidden ones."""

    copies = 0
    hidden = frozenset(
        {"item", "tolist", "numpy", "nonzero", "masked_select", "unique", "__array__"}
        | {"__bool__", "__int__", "__float__", "__index__", "__contains__", "bincount"}
    )

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        name = func.__name__
        if name == "cpu":
            DeviceTensor.copies += 1
            return super().__torch_function__(func, types, args).as_subclass(torch.Tensor)
        boolean_index = name in ("__getitem__", "__setitem__") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
            for index in (args[1] if isinstance(args[1], tuple) else (args[1],))
        )
        to_host = name == "to" and "cpu" in map(str, [*args[1:], *(kwargs or {}).values()])
        if name in DeviceTensor.hidden or boolean_index or to_host:
            raise AssertionError(f"{name} waits for the device")
        return super().__torch_function__(func, types, args, kwargs or {})


def to_device(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: to_device(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_device(item) for item in value]
    return value.as_subclass(DeviceTensor)


def test_costs_reach_the_host_in_one_copy(reference_operators: str) -> None:
    outputs, targets = random_outputs(3, 3, 6, seed=11), random_targets([2, 0, 4], seed=12)
    criterion = make_criterion(num_aux_outputs=3)
    torch.manual_seed(0)
    expected = mean_losses(criterion, outputs, targets)
    criterion.empty_weight = to_device(criterion.empty_weight)
    device_outputs, device_targets = to_device(outputs), to_device(targets)

    DeviceTensor.copies = 0
    torch.manual_seed(0)
    losses = mean_losses(criterion, device_outputs, device_targets)
    assert DeviceTensor.copies == 1
    for name, loss in losses.items():
        assert isinstance(loss, DeviceTensor)
        assert torch.equal(loss.as_subclass(torch.Tensor), expected[name])

    # A check of the counter: the usual matcher copies once per image.
    DeviceTensor.copies = 0
    hugging_face.Mask2FormerHungarianMatcher(num_points=POINTS)(
        device_outputs["pred_masks"],
        device_outputs["pred_logits"],
        [target["masks"] for target in device_targets],
        [target["labels"] for target in device_targets],
    )
    assert DeviceTensor.copies == 3


@pytest.mark.parametrize("counts", [[4, 0, 12], [0, 0, 0]])
def test_normalisers_are_what_pairs_and_class_weights_add_up_to(counts: list[int]) -> None:
    """The loss uses the same matching: with 8 queries, 8 of 12 targets are matched."""
    outputs, targets = random_outputs(1, 3, 8, seed=13), random_targets(counts, seed=14)
    criterion = make_criterion(num_aux_outputs=1)
    normalisers = criterion.normalisers(counts, num_queries=8)
    assert normalisers["masks"] == sum(counts)
    for matches in match(criterion.matcher, [*outputs["aux_outputs"], outputs], targets):
        classes = torch.full((3, 8), CLASSES)
        for image, (queries, matched) in enumerate(matches):
            classes[image, queries] = targets[image]["labels"][matched]
        expected = criterion.empty_weight[classes].double().sum().item()
        assert normalisers["class_weights"] == pytest.approx(expected, rel=1e-6)


def test_losses_are_divided_by_the_normalisers() -> None:
    outputs, targets = random_outputs(0, 2, 6, seed=13), random_targets([1, 2], seed=14)
    criterion = make_criterion(num_aux_outputs=0)
    losses = []
    for masks, class_weights in ((1.0, 1.0), (4.0, 2.5)):
        counts = {"masks": masks, "class_weights": class_weights}
        torch.manual_seed(0)
        losses.append(criterion(outputs, targets, average_over_processes(counts, "cpu")))
    for name, divisor in (("loss_ce", 2.5), ("loss_mask", 4), ("loss_dice", 4)):
        assert losses[1][name].dtype == torch.float32
        torch.testing.assert_close(losses[1][name] * divisor, losses[0][name])
