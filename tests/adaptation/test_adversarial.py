"""Adversarial adaptation: gradients go where they should, as in the authors' procedure."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddep.adaptation import AdaptedModel
from ddep.adaptation.adversarial import AdversarialAdaptation
from ddep.engine.train_step import TrainStep
from ddep.errors import UserError
from tests.adaptation.two_layers import (
    TwoLayerClassifier,
    TwoLayers,
    batch_of,
    config,
    sample,
    supervised_loss,
)

WEIGHTS = [0.5, 0.25]
SIZE = (32, 64)
RATE, BETAS = 1e-3, (0.9, 0.99)


@pytest.fixture(autouse=True)
def narrow_discriminators(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of the published weights: these tests are fast then."""
    monkeypatch.setattr("ddep.adaptation.discriminator._CHANNELS", (8, 16, 24, 32))


def make_method(maps: str = "softmax") -> AdversarialAdaptation:
    torch.manual_seed(1)
    settings = {"WEIGHTS": WEIGHTS, "MAPS": maps, "BASE_LR": RATE}
    return AdversarialAdaptation(config(ADVERSARIAL=settings), num_classes=3).double()


def mixed_batch(seed: int) -> list[dict[str, Any]]:
    domains = (False, True, False, True)
    return [sample(4 * seed + i, SIZE, target=target) for i, target in enumerate(domains)]


def make_step(method: nn.Module, *batches: list[dict[str, Any]], **options: Any) -> TrainStep:
    classifier = TwoLayerClassifier()
    model = AdaptedModel(classifier, method, None, None)
    optimizer = torch.optim.SGD(classifier.model.parameters(), lr=0.1, momentum=0.9)
    return TrainStep(
        model,
        batches,
        optimizer,
        more_optimizers=[method.optimizer()],
        normalisers=model.normalisers,
        **options,
    )


def authors_input(logits: Tensor, maps: str) -> Tensor:
    p = F.interpolate(logits, SIZE, mode="bilinear").softmax(1)
    return p if maps == "softmax" else -p * torch.log2(p) / math.log2(3)


def authors_loss(logits: Tensor, domain: float) -> Tensor:
    return nn.BCEWithLogitsLoss()(logits, torch.full_like(logits, domain))


def authors_steps(
    discriminators: nn.ModuleList, batches: list[list[dict[str, Any]]], maps: str
) -> tuple[TwoLayers, nn.ModuleList]:
    """AdaptSegNet's and ADVENT's training: one backward pass after the other."""
    segmentor, discriminators = TwoLayers(), copy.deepcopy(discriminators)
    optimizers = [torch.optim.SGD(segmentor.parameters(), lr=0.1, momentum=0.9)]
    optimizers += [torch.optim.Adam(d.parameters(), lr=RATE, betas=BETAS) for d in discriminators]
    for batch in batches:
        source = [image for image in batch if "sem_seg" in image]
        of_source, of_target = (
            torch.stack([(s["image"] - 128) / 64 for s in samples])
            for samples in (source, [s for s in batch if "is_target" in s])
        )
        for optimizer in optimizers:
            optimizer.zero_grad()
        discriminators.requires_grad_(False)
        on_source = segmentor(of_source)
        supervised_loss(on_source[0], source).backward()
        on_target = segmentor(of_target)
        sum(
            weight * authors_loss(discriminator(authors_input(logits, maps)), 0)
            for weight, discriminator, logits in zip(
                WEIGHTS, discriminators, on_target, strict=True
            )
        ).backward()
        discriminators.requires_grad_(True)
        for domain, outputs in ((0, on_source), (1, on_target)):
            for discriminator, logits in zip(discriminators, outputs, strict=True):
                seen = authors_input(logits.detach(), maps)
                (authors_loss(discriminator(seen), domain) / 2).backward()
        for optimizer in optimizers:
            optimizer.step()
    return segmentor, discriminators


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("maps", ["softmax", "self_information"])
def test_steps_are_those_of_the_authors_procedure(maps: str, parts: int) -> None:
    method = make_method(maps)
    batches = [mixed_batch(seed) for seed in range(2)]
    segmentor, discriminators = authors_steps(method.discriminators, batches, maps)
    step = make_step(method, *batches, parts=parts)
    for _ in batches:
        result = step.run()
        assert not result.skipped
    assert result.losses.keys() == {
        "loss_sem_seg",
        "loss_adversarial",
        "loss_adversarial_1",
        "d_loss",
        "d_loss_1",
    }
    for expected, found in (
        (segmentor, step.model.model),
        (discriminators, method.discriminators),
    ):
        assert not torch.equal(next(found.parameters()), next(TwoLayers().parameters()))
        for name, weight in expected.named_parameters():
            torch.testing.assert_close(found.get_parameter(name), weight, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("of_discriminator", [False, True])
def test_a_loss_changes_only_its_own_network(of_discriminator: bool) -> None:
    method, classifier = make_method(), TwoLayerClassifier()
    target = [sample(1, target=True)]
    losses = method.losses(batch_of(classifier, [sample(0)], target))
    sum(v for name, v in losses.items() if name.startswith("d_loss") is of_discriminator).backward()
    trained, other = classifier.model, method
    if of_discriminator:
        trained, other = other, trained
    assert all(weight.grad.abs().sum() > 0 for weight in trained.parameters())
    assert all(weight.grad is None for weight in other.parameters())


def test_padding_does_not_count() -> None:
    method, classifier = make_method("self_information"), TwoLayerClassifier()
    images = [sample(0, (32, 40)), sample(1, (64, 64))]
    target = [{"image": s["image"], "is_target": True} for s in images]
    together = method.losses(batch_of(classifier, images, target))
    parts = [
        method.losses(batch_of(classifier, [s], [t], (2, 2)))
        for s, t in zip(images, target, strict=True)
    ]
    # Padding reaches half a cell of stride 4 into an image.
    for name, loss in together.items():
        alone = sum(part[name] for part in parts)
        assert alone.item() == pytest.approx(loss.item(), rel=1e-3), name


def everything(step: TrainStep) -> dict[str, Tensor]:
    optimizers = (step.optimizer, *step.more_optimizers)
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    tensors = {f"{i} {k}": v for i, state in enumerate(states) for k, v in state.items()}
    return {k: v.clone() for k, v in {**step.model.state_dict(), **tensors}.items()}


@pytest.mark.parametrize("poisoned", [0, 1])
def test_a_poisoned_image_of_either_domain_changes_neither_network(poisoned: int) -> None:
    bad = mixed_batch(1)
    bad[poisoned]["image"][0, 0, 0] = math.inf
    step = make_step(make_method(), mixed_batch(0), bad)
    step.run()
    before = everything(step)
    result = step.run()
    assert result.skipped
    assert f"{4 + poisoned}.png" in result.problem
    for name, value in everything(step).items():
        assert torch.equal(value, before[name]), name


def test_discriminators_and_their_optimizer_are_resumed_exactly() -> None:
    batches = [mixed_batch(seed) for seed in range(2)]
    whole = make_step(make_method(), *batches)
    whole.run()
    whole.run()
    first = make_step(make_method(), batches[0])
    first.run()
    second = make_step(make_method(), batches[1])
    second.model.load_state_dict(first.model.state_dict())
    second.load_state_dict(first.state_dict())
    second.run()
    expected = everything(whole)
    assert any("discriminators" in name for name in expected)
    assert any("exp_avg_sq" in name for name in expected)
    for name, value in everything(second).items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"MAPS": "entropy"}, "MAPS is 'entropy'; expected softmax or self_information"),
        ({"BASE_LR": 0.0}, "BASE_LR is 0.0; expected a number above 0"),
        ({"BETAS": [0.9, 1.0]}, "expected two numbers from 0 to below 1"),
        ({"WEIGHTS": [-1.0]}, "MODEL.ADAPTATION.ADVERSARIAL.WEIGHTS is"),
    ],
)
def test_impossible_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AdversarialAdaptation.check(config(ADVERSARIAL=values))
    AdversarialAdaptation.check(config())
