"""Metrics of classification against torchmetrics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from torchmetrics.functional import classification as theirs

from ddep.errors import UserError
from ddep.evaluation.classification import (
    ClassificationEvaluator,
    mean_average_precision,
    precision_recall_f1,
)


def register(classes: int, multi_label: bool = False) -> str:
    name = f"classification_{classes}_{multi_label}"
    MetadataCatalog.pop(name, None)
    names = [f"c{number}" for number in range(classes)]
    MetadataCatalog.get(name).set(classes=names, multi_label=multi_label)
    return name


def batches(scores: torch.Tensor, classes: list[list[int]]) -> list[tuple[list[Any], list[Any]]]:
    return [
        ([{"classes": torch.tensor(c, dtype=torch.int64)}], [{"classes": s}])
        for s, c in zip(scores, classes, strict=True)
    ]


def evaluate(name: str, scores: torch.Tensor, classes: list[list[int]]) -> dict[str, float]:
    evaluator = ClassificationEvaluator(name)
    for _ in range(2):  # the second time as if there had been no first
        evaluator.reset()
        for inputs, outputs in batches(scores, classes):
            evaluator.process(inputs, outputs)
    return evaluator.evaluate()["classification"]


def single(classes: int, images: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    scores = torch.randn(images, classes, generator=generator)
    truth = torch.randint(0, classes, (images,), generator=generator)
    scores[torch.arange(images), truth] += 1
    return scores.softmax(1), truth


@pytest.mark.parametrize(("classes", "images"), [(3, 40), (8, 60), (30, 50)])
def test_one_class_an_image_is_torchmetrics(classes: int, images: int) -> None:
    """Of 30 classes, some are neither true nor predicted, and some only one of both."""
    scores, truth = single(classes, images)
    found = evaluate(register(classes), scores, truth[:, None].tolist())
    options = {"num_classes": classes, "average": "macro"}
    expected = {
        "top1": theirs.multiclass_accuracy(scores, truth, classes, average="micro"),
        "precision": theirs.multiclass_precision(scores, truth, **options),
        "recall": theirs.multiclass_recall(scores, truth, **options),
        "f1": theirs.multiclass_f1_score(scores, truth, **options),
    }
    if classes > 5:
        expected["top5"] = theirs.multiclass_accuracy(
            scores, truth, classes, average="micro", top_k=5
        )
    assert found == pytest.approx({k: 100 * v.item() for k, v in expected.items()}, rel=1e-5)
    assert 0 < found["recall"] < 100


def test_several_classes_an_image_are_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(50, 6, generator=generator) < 0.3
    # Rounded, so that some scores are equal.
    scores = (torch.rand(50, 6, generator=generator) + 0.4 * truth).div(1.4).mul(30).round() / 30
    classes = [row.nonzero().flatten().tolist() for row in truth]
    assert [] in classes
    found = evaluate(register(6, multi_label=True), scores, classes)
    options = {"num_labels": 6, "average": "macro"}
    labels = truth.long()
    expected = {
        "mAP": theirs.multilabel_average_precision(scores, labels, **options),
        "precision": theirs.multilabel_precision(scores, labels, **options),
        "recall": theirs.multilabel_recall(scores, labels, **options),
        "f1": theirs.multilabel_f1_score(scores, labels, **options),
    }
    assert found == pytest.approx({k: 100 * v.item() for k, v in expected.items()}, rel=1e-5)


def test_classes_without_any_image_are_left_out() -> None:
    truth = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    scores = np.array([[0.9, 0.8, 0.1], [0.8, 0.1, 0.1], [0.7, 0.2, 0.1]])
    # The first class: of one image at 1/1, of the other at 2/3.
    assert mean_average_precision(scores, truth) == pytest.approx((1 + 2 / 3) / 2)
    predicted = scores > 0.5
    counts = [array.sum(axis=0) for array in (truth & predicted, predicted, truth)]
    # The second class is predicted once and never true; the third is neither.
    expected = {"precision": (2 / 3 + 0) / 2, "recall": (1 + 0) / 2, "f1": (0.8 + 0) / 2}
    assert precision_recall_f1(*counts) == pytest.approx(expected)
    nothing = np.zeros((3, 3), dtype=bool)
    assert np.isnan(mean_average_precision(scores, nothing))
    assert np.isnan(precision_recall_f1(*np.zeros((3, 4), dtype=int))["f1"])


def test_what_does_not_fit_is_one_line() -> None:
    with pytest.raises(UserError, match=r"data set unheard_of has no classes in its metadata"):
        ClassificationEvaluator("unheard_of")
    message = r"MODEL\.CLASSIFIER\.NUM_CLASSES is 3, but classification_4_False has 4 classes"
    with pytest.raises(UserError, match=message):
        evaluate(register(4), torch.rand(1, 3), [[0]])
