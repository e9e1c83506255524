"""The mean teacher's loss against a plain loop in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg

from ddep.adaptation import MeanTeacher
from ddep.adaptation.mean_teacher import learn_sure_pixels
from ddep.config import add_ddep_config
from ddep.errors import UserError
from tests.adaptation.colour_classifier import CLASSES, ColourClassifier, target_batch

LOGITS = torch.randn(2, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0)).double()


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7])
def test_loss_is_the_mean_over_valid_pixels(threshold: float) -> None:
    learned, taught = (2 * LOGITS).log_softmax(2)
    valid = torch.ones(2, 5, 6, dtype=torch.bool)
    valid[1, 4:] = valid[1, :, 3:] = False
    taught[1, :, 4:] = taught[1, :, :, 3:] = torch.nan
    actual = learn_sure_pixels(learned, taught, valid, threshold)
    expected, sure = np.zeros(2), 0
    for image, (rows, columns) in enumerate(((5, 6), (4, 3))):
        for i in range(rows):
            for j in range(columns):
                probabilities = taught[image, :, i, j].exp().numpy()
                label = int(probabilities.argmax())
                if probabilities[label] >= threshold:
                    sure += 1
                    expected[image] -= float(learned[image, label, i, j]) / (rows * columns)
    assert sure == 42 if threshold == 0 else 5 < sure < 40
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_only_the_student_learns() -> None:
    logits = LOGITS.clone().requires_grad_()
    learned, taught = logits.log_softmax(2)
    valid = torch.ones(2, 5, 6, dtype=torch.bool)
    learn_sure_pixels(learned, taught.detach(), valid, 0.5).sum().backward()
    assert not logits.grad[1].any()
    sure = taught.exp().amax(1, keepdim=True) >= 0.5
    assert ((logits.grad[0] != 0) == sure).all()


def test_the_teacher_sees_weak_views_and_the_student_strong_ones() -> None:
    """Of two images, the second of which is padded."""
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.MODEL.ADAPTATION.TEACHER.WEIGHT = 3.0
    cfg.MODEL.ADAPTATION.TEACHER.THRESHOLD = 0.6
    generator = torch.Generator().manual_seed(1)
    draw = lambda size: torch.randint(256, (3, *size), generator=generator).byte()  # noqa: E731
    samples = [{"image": draw(s), "strong": [draw(s)]} for s in ((16, 24), (8, 20))]
    student, teacher = ColourClassifier(seed=5), ColourClassifier(seed=7)
    losses = MeanTeacher(cfg, CLASSES).losses(target_batch(student, teacher, samples, count=3))
    expected = 0.0
    for sample in samples:
        confidences, labels = teacher.alone(sample["image"]).exp().max(0)
        learned = student.alone(sample["strong"][0]).gather(0, labels[None])[0]
        expected += -3 * (learned * (confidences >= 0.6)).mean() / 3
    assert losses.keys() == {"loss_teacher"}
    torch.testing.assert_close(losses["loss_teacher"], expected, rtol=1e-12, atol=0)
    assert expected > 0


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("THRESHOLD", 1.5, "a number from 0 to 1"), ("WEIGHT", -1.0, "0 or more")],
)
def test_impossible_values(key: str, value: float, expected: str) -> None:
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.MODEL.ADAPTATION.TEACHER[key] = value
    with pytest.raises(UserError, match=rf"TEACHER\.{key} is {value}; expected {expected}"):
        MeanTeacher.check(cfg)
