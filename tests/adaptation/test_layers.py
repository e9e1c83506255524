"""Layers that models predict from, as methods with several levels count them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddep.adaptation import EntropyMinimisation
from ddep.errors import UserError
from ddep.modeling.pixel_classifier import PixelClassifier
from ddep.tasks import task_of
from tests.adaptation.two_layers import config
from tests.modeling.meta_arch.batches import config_of, model_and_batch

MASK2FORMER: dict[str, Any] = {"pretrain": False, "MASK_LOSS": "points"}
PIXELWISE = [
    {"pretrain": False, "HEAD": "PerPixelBaselineHead"},
    {"pretrain": False, "HEAD": "PerPixelBaselinePlusHead"},
]


def make_classifier(kind: dict[str, Any]) -> tuple[PixelClassifier, list[dict[str, Any]]]:
    model, batch = model_and_batch(kind)
    return task_of(config_of(kind)).pixel_classifier(config_of(kind), model.train()), batch[:2]


@pytest.mark.parametrize("kind", [MASK2FORMER, *PIXELWISE], ids=str)
def test_the_number_of_layers_is_known_before_predictions(kind: dict[str, Any]) -> None:
    classifier, batch = make_classifier(kind)
    images = classifier.images(batch)
    predictions = classifier.predict(classifier.features(images.tensor))
    assert len(predictions.log_probabilities) == classifier.num_layers


def layer_of_each_prediction(classifier: PixelClassifier, batch: list, final: nn.Module) -> Tensor:
    """Which of the outputs of ``final``, in order of computation, each prediction depends on."""
    outputs: list[Tensor] = []
    handle = final.register_forward_hook(lambda _, __, output: outputs.append(output))
    images = classifier.images(batch)
    layers = list(classifier.predict(classifier.features(images.tensor)).log_probabilities)
    handle.remove()
    return torch.stack(
        [
            torch.tensor(
                [
                    g is not None and bool(g.abs().sum() > 0)
                    for g in torch.autograd.grad(
                        layer.square().sum(), outputs, retain_graph=True, allow_unused=True
                    )
                ]
            )
            for layer in layers
        ]
    )


@pytest.mark.parametrize("kind", [MASK2FORMER, PIXELWISE[1]], ids=str)
def test_predictions_go_from_the_last_layer_to_the_first(kind: dict[str, Any]) -> None:
    classifier, batch = make_classifier(kind)
    found = layer_of_each_prediction(
        classifier, batch, classifier.model.sem_seg_head.predictor.mask_embed
    )
    number = len(found)
    assert number > 2
    assert torch.equal(found, torch.eye(number, dtype=torch.bool).flip(0))


def test_a_model_without_as_many_layers_is_refused() -> None:
    method = EntropyMinimisation(config(ENTROPY={"WEIGHTS": [0.1, 0.2]}), num_classes=3)
    classifier, _ = make_classifier(PIXELWISE[1])
    method.check_model(classifier)
    classifier, _ = make_classifier(PIXELWISE[0])
    with pytest.raises(UserError, match="WEIGHTS has 2 weights, but the number of layers .* is 1;"):
        method.check_model(classifier)
