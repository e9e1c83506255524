"""The loss of MinEnt on a batch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ddep.adaptation import METHODS
from ddep.adaptation.entropy import EntropyMinimisation
from ddep.errors import UserError
from tests.adaptation.two_layers import TwoLayerClassifier, batch_of, config, sample


def mean_entropy(classifier: TwoLayerClassifier, image: dict[str, Any], layer: int) -> float:
    """ADVENT's loss of one image whose sides are multiples of 8."""
    size = image["image"].shape[1:]
    logits = classifier.model((image["image"][None] - 128) / 64)[layer]
    p = torch.nn.functional.interpolate(logits, size, mode="bilinear").softmax(1)
    return (-(p * p.log2()).sum() / (size.numel() * math.log2(3))).item()


def test_the_loss_is_the_mean_entropy_of_target_images_for_each_layer() -> None:
    method = METHODS["entropy"](config(ENTROPY={"WEIGHTS": [0.5, 0.25]}), num_classes=3)
    classifier = TwoLayerClassifier()
    target = [sample(seed, target=True) for seed in range(3)]
    found = method.losses(batch_of(classifier, [sample(9)], target))
    assert found.keys() == {"loss_entropy", "loss_entropy_1"}
    for layer, name, weight in ((0, "loss_entropy", 0.5), (1, "loss_entropy_1", 0.25)):
        expected = sum(mean_entropy(classifier, image, layer) for image in target) / 3
        assert found[name].item() == pytest.approx(weight * expected)


def test_padding_and_the_parts_of_a_batch_make_no_difference() -> None:
    method = EntropyMinimisation(config(), num_classes=3)
    classifier = TwoLayerClassifier()
    target = [sample(0, (32, 64), target=True), sample(1, (48, 40), target=True)]
    source = [sample(9)]
    whole = method.losses(batch_of(classifier, source, target))["loss_entropy"]
    gradient = torch.autograd.grad(whole, classifier.model.last.weight)[0]
    parts = [
        method.losses(batch_of(classifier, source, [image], (1, 2)))["loss_entropy"]
        for image in target
    ]
    # Padding reaches half a cell of stride 4 into an image.
    assert sum(parts).item() == pytest.approx(whole.item(), rel=0.01)
    inside = sum(mean_entropy(classifier, image, 0) for image in target) / 2
    assert sum(parts).item() == pytest.approx(0.001 * inside)
    parts_gradient = torch.autograd.grad(sum(parts), classifier.model.last.weight)[0]
    assert (parts_gradient - gradient).norm() < 0.02 * gradient.norm()


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("ENTROPY", {"WEIGHTS": []}, r"MODEL.ADAPTATION.ENTROPY.WEIGHTS is \[\]; expected a list"),
        ("ENTROPY", {"WEIGHTS": [0.1, -1]}, "at least 0 for each layer"),
        ("CLASS_RATIO", {"WEIGHT": -1.0}, "CLASS_RATIO.WEIGHT is -1.0; expected at least 0"),
        ("CLASS_RATIO", {"MU": 1.5}, "CLASS_RATIO.MU is 1.5; expected 0 to 1"),
    ],
)
def test_impossible_values_are_named(section: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EntropyMinimisation.check(config(**{section: values}))
    EntropyMinimisation.check(config())


def test_one_class_has_no_entropy() -> None:
    with pytest.raises(UserError, match="entropy needs at least 2 classes, but the model has 1"):
        EntropyMinimisation(config(), num_classes=1)


def test_more_weights_than_layers_are_refused() -> None:
    method = EntropyMinimisation(config(ENTROPY={"WEIGHTS": [1, 1, 1]}), num_classes=3)
    with pytest.raises(UserError, match="WEIGHTS has 3 weights, but the number of layers .* is 2;"):
        method.check_model(TwoLayerClassifier())
