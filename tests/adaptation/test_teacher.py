"""The teacher is the averaged model, and the student does not notice it."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import Tensor, nn

from ddep.adaptation.teacher import Teacher
from ddep.engine.ema import WeightAverage


class _Classifier:
    """Stands for a PixelClassifier: the parts that a teacher calls."""

    def __init__(self, model: nn.ModuleDict) -> None:
        self.model = model

    def features(self, images: Tensor) -> Tensor:
        return self.model["encoder"](images)

    def predict(self, features: Tensor) -> Tensor:
        return self.model["decoder"](features)


def _make_student() -> tuple[_Classifier, WeightAverage]:
    """In training, but for one frozen norm; its average is of other weights than it has."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    decoder = nn.Sequential(nn.Dropout(0.5), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
    average.update()
    model.train()
    decoder[2].eval()
    return _Classifier(model), average


IMAGES = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(1))


def test_predictions_are_those_of_the_averaged_model() -> None:
    classifier, average = _make_student()
    expected_model = copy.deepcopy(classifier.model)
    expected_model.load_state_dict(average.state_dict()["model"], strict=False)
    expected_model.eval()
    expected = expected_model["decoder"](expected_model["encoder"](IMAGES))
    predicted = Teacher(classifier, average.in_place).predict(IMAGES)
    assert not predicted.requires_grad
    torch.testing.assert_close(predicted, expected, rtol=0, atol=0)
    assert not torch.equal(predicted, copy.deepcopy(classifier.model).eval()["encoder"](IMAGES))


def test_the_student_is_left_as_it_was() -> None:
    classifier, average = _make_student()
    weights = {name: value.clone() for name, value in classifier.model.state_dict().items()}
    modes = {name: module.training for name, module in classifier.model.named_modules()}
    random_state = torch.get_rng_state()
    Teacher(classifier, average.in_place).predict(IMAGES)
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, value in classifier.model.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert {name: module.training for name, module in classifier.model.named_modules()} == modes
    assert torch.is_grad_enabled()


def test_the_student_is_left_as_it_was_after_an_error() -> None:
    classifier, average = _make_student()
    weight = classifier.model["encoder"][0].weight.clone()
    with pytest.raises(RuntimeError, match="channels"):
        Teacher(classifier, average.in_place).predict(IMAGES[:, :2])
    assert torch.equal(classifier.model["encoder"][0].weight, weight)
    assert classifier.model["encoder"].training
    assert not classifier.model["decoder"][2].training


def _autocast(precision: torch.dtype | None) -> contextlib.AbstractContextManager:
    return torch.autocast("cpu", dtype=precision) if precision else contextlib.nullcontext()


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_the_student_s_gradients_do_not_change(precision: torch.dtype | None) -> None:
    """Under autocast, it must not meet the low-precision weights of the teacher."""
    gradients = []
    for calls in (False, True):
        classifier, average = _make_student()
        teacher = Teacher(classifier, average.in_place)
        torch.manual_seed(2)
        with _autocast(precision):
            if calls:
                teacher.predict(IMAGES)
            features = classifier.features(IMAGES)
            if calls:
                teacher.predict(IMAGES)
            outputs = classifier.predict(features)
            assert torch.is_autocast_cache_enabled()
            outputs.float().square().mean().backward()
        gradients.append([p.grad for p in classifier.model.parameters()])
    for alone, beside in zip(*gradients, strict=True):
        assert torch.equal(alone, beside)
    assert alone.abs().sum() > 0


def test_autocast_holds_for_the_teacher_with_its_own_weights() -> None:
    """It must not meet the low-precision weights of the student."""
    classifier, average = _make_student()
    lone = copy.deepcopy(classifier)
    lone.model.load_state_dict(average.state_dict()["model"], strict=False)
    lone.model.eval()
    with _autocast(torch.bfloat16):
        classifier.features(IMAGES)
        predicted = Teacher(classifier, average.in_place).predict(IMAGES)
        expected = lone.predict(lone.features(IMAGES))
    assert torch.equal(predicted, expected)
    assert predicted.dtype is torch.bfloat16
