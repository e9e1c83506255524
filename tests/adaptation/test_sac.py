"""DA-SAC's loss against plain loops in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from torch import Tensor

from ddep.adaptation import SelfSupervisedConsistency
from ddep.config import add_ddep_config
from ddep.errors import UserError
from tests.adaptation.colour_classifier import (
    CLASSES,
    STRIDE,
    ColourClassifier,
    target_batch,
)
from tests.adaptation.warping_loops import fuse_by_loops

VIEWS = 3
# The image itself, its lower right part, and a flipped part of its middle.
TO_FRAME = torch.tensor(
    [
        [[1, 0, 0], [0, 1, 0]],
        [[0.5, 0, 0.5], [0, 0.5, 0.5]],
        [[-0.75, 0, 0.1], [0, 0.75, -0.2]],
    ]
)
SIZES = [(16, 24), (8, 20)]
SHARES = torch.tensor([1e-4, 0.5, 0.02, 0.3], dtype=torch.float64)


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    add_ddep_config(cfg)
    return cfg


def _samples() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(3)

    def draw(size: tuple[int, int]) -> list[Tensor]:
        # Large squares of one colour, so that views agree in places.
        small = torch.randint(256, (VIEWS, 3, size[0] // 4, size[1] // 4), generator=generator)
        return list(small.repeat_interleave(4, 2).repeat_interleave(4, 3).byte())

    return [{"views": draw(s), "strong": draw(s), "to_frame": TO_FRAME} for s in SIZES]


def _losses(
    method: SelfSupervisedConsistency, student: ColourClassifier, samples: list[dict[str, Any]]
) -> Tensor:
    batch = target_batch(student, ColourClassifier(seed=7), samples, count=len(SIZES))
    losses = method.losses(batch)
    assert list(losses) == ["loss_sac"]
    return losses["loss_sac"]


def _expected(
    samples: list[dict[str, Any]], student: ColourClassifier
) -> tuple[float, np.ndarray, int]:
    """The loss, each image's shares (images, K), and the number of pixels that learn."""
    loss, shares, learning = 0.0, np.zeros((len(samples), CLASSES)), 0
    teacher = ColourClassifier(seed=7)
    for index, sample in enumerate(samples):
        taught = torch.stack([teacher.alone(view).exp().detach() for view in sample["views"]])
        shares[index] = taught.numpy().mean((0, 2, 3))
        fused = fuse_by_loops(taught, TO_FRAME.double())
        for probabilities, strong in zip(fused, sample["strong"], strict=True):
            learned = student.alone(strong).detach().numpy()
            _, rows, columns = probabilities.shape
            labels, confidences = probabilities.argmax(0), probabilities.max(0)
            for i in range(rows):
                for j in range(columns):
                    label = labels[i, j]
                    peak = max(confidences[labels == label])
                    share = float(SHARES[label])
                    limit = max(0.2, 0.75 * peak * (1 - math.exp(-share / 1e-3)))
                    if confidences[i, j] > limit:
                        learning += 1
                        value = -learned[label, i, j] * (1 - share) ** 3 * confidences[i, j]
                        loss += 5 * value / (rows * columns) / VIEWS / len(samples)
    return loss, shares, learning


def test_loss_follows_the_paper(cfg: CfgNode) -> None:
    """Of two images, the second of which is padded."""
    method = SelfSupervisedConsistency(cfg, CLASSES)
    method.class_shares.shares.copy_(SHARES)
    samples, student = _samples(), ColourClassifier(seed=5)
    actual = _losses(method, student, samples)
    expected, shares, learning = _expected(samples, student)
    pixels = VIEWS * sum(height * width for height, width in SIZES) / STRIDE**2
    assert 0.2 * pixels < learning < 0.9 * pixels
    assert float(actual.detach()) == pytest.approx(expected, rel=1e-9)
    method.finish_step(skipped=False)
    np.testing.assert_allclose(method.class_shares.shares, shares.mean(0), rtol=1e-9)
    actual.backward()
    assert student.model.weight.grad.abs().sum() > 0


def test_parts_add_up_to_the_batch(cfg: CfgNode) -> None:
    """Each image is padded in another way, and what is gathered is used in the next step."""
    whole, parts = (SelfSupervisedConsistency(cfg, CLASSES) for _ in range(2))
    samples, student = _samples(), ColourClassifier(seed=5)
    for _ in range(3):
        expected = _losses(whole, student, samples)
        actual = sum(_losses(parts, student, [sample]) for sample in samples)
        torch.testing.assert_close(actual, expected)
        for method in (whole, parts):
            method.finish_step(skipped=False)
        torch.testing.assert_close(parts.class_shares.shares, whole.class_shares.shares)
    assert whole.class_shares.steps == 3


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("PEAK_FRACTION", 1.5, "a number from 0 to 1"),
        ("FOCAL_POWER", -1.0, "0 or more"),
        ("RARE_SHARE", 0.0, "more than 0"),
    ],
)
def test_impossible_values(cfg: CfgNode, key: str, value: float, expected: str) -> None:
    cfg.MODEL.ADAPTATION.SAC[key] = value
    with pytest.raises(UserError, match=rf"SAC\.{key} is {value}; expected {expected}"):
        SelfSupervisedConsistency.check(cfg)
