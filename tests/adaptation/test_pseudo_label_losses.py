from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ddep.adaptation.pseudo_label_losses import (
    cross_entropy,
    divergence,
    regulariser,
    reverse_cross_entropy,
)

BATCH, CLASSES, SIZE, IGNORE = 3, 4, (2, 3), 255


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(BATCH, CLASSES, *SIZE, generator=torch.Generator().manual_seed(0)) * 2


@pytest.fixture
def labels() -> torch.Tensor:
    labels = torch.randint(CLASSES, (BATCH, *SIZE), generator=torch.Generator().manual_seed(1))
    labels[0, 1, :] = IGNORE
    labels[2] = IGNORE
    return labels


def probabilities(logits: torch.Tensor, image: int, y: int, x: int) -> np.ndarray:
    exponentials = np.exp(logits[image, :, y, x].double().numpy())
    return exponentials / exponentials.sum()


def test_symmetric_cross_entropy_is_that_of_loops(
    logits: torch.Tensor, labels: torch.Tensor
) -> None:
    forward, reverse = np.zeros(BATCH), np.zeros(BATCH)
    for image in range(BATCH):
        count = 0
        for y, x in np.ndindex(*SIZE):
            label = int(labels[image, y, x])
            if label == IGNORE:
                continue
            p = probabilities(logits, image, y, x)
            one_hot = np.where(np.arange(CLASSES) == label, 1, 1e-4)
            forward[image] += -math.log(p[label])
            reverse[image] += -(p * np.log(one_hot)).sum()
            count += 1
        forward[image] /= max(count, 1)
        reverse[image] /= max(count, 1)
    log_p = logits.log_softmax(1)
    np.testing.assert_allclose(cross_entropy(log_p, labels, IGNORE), forward, rtol=1e-5)
    np.testing.assert_allclose(reverse_cross_entropy(log_p, labels, IGNORE), reverse, rtol=1e-5)
    assert forward[2] == 0 < forward[0]


def test_divergence_and_regulariser_are_those_of_loops(logits: torch.Tensor) -> None:
    teacher = torch.rand(BATCH, CLASSES, *SIZE, generator=torch.Generator().manual_seed(2))
    teacher[1, 0] = 0  # whose logarithm is infinite
    teacher /= teacher.sum(1, keepdim=True)
    valid = torch.ones(BATCH, *SIZE, dtype=torch.bool)
    valid[0, 0, 1:] = False
    expected, uniform = np.zeros(BATCH), np.zeros(BATCH)
    for image in range(BATCH):
        pixels = [(y, x) for y, x in np.ndindex(*SIZE) if valid[image, y, x]]
        for y, x in pixels:
            p, q = probabilities(logits, image, y, x), teacher[image, :, y, x].double().numpy()
            terms = [q_k * math.log(q_k / p_k) for p_k, q_k in zip(p, q, strict=True) if q_k > 0]
            expected[image] += sum(terms) / CLASSES / len(pixels)
            uniform[image] += -np.log(p).sum() / CLASSES / len(pixels)
    log_p = logits.log_softmax(1)
    np.testing.assert_allclose(divergence(teacher, log_p, valid), expected, rtol=1e-4)
    np.testing.assert_allclose(regulariser(log_p, valid), uniform, rtol=1e-5)


def test_losses_are_zero_where_they_should_be(logits: torch.Tensor) -> None:
    valid = torch.ones(BATCH, *SIZE, dtype=torch.bool)
    log_p = logits.log_softmax(1)
    assert divergence(log_p.exp(), log_p, valid).abs().max() < 1e-7
    sure = torch.full((1, CLASSES, 1, 1), -1e9)
    sure[:, 1] = 0
    label = torch.ones(1, 1, 1, dtype=torch.int64)
    assert reverse_cross_entropy(sure, label, IGNORE) == cross_entropy(sure, label, IGNORE) == 0
    # A wrong label costs at most -log 1e-4.
    assert reverse_cross_entropy(sure, 0 * label, IGNORE).item() == pytest.approx(4 * math.log(10))


def test_the_regulariser_is_least_for_uniform_probabilities(logits: torch.Tensor) -> None:
    valid = torch.ones(BATCH, *SIZE, dtype=torch.bool)
    uniform = torch.full_like(logits, -math.log(CLASSES))
    torch.testing.assert_close(regulariser(uniform, valid), torch.full((BATCH,), math.log(CLASSES)))
    assert (regulariser(logits.log_softmax(1), valid) > math.log(CLASSES)).all()
