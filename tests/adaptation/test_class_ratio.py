"""The class-ratio prior, by hand."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import Instances

from ddep.adaptation.class_ratio import ClassRatioPrior
from ddep.adaptation.entropy import EntropyMinimisation
from tests.adaptation.two_layers import TwoLayerClassifier, batch_of, config, sample


def labelled(classes: list[int], sizes: list[int]) -> dict[str, Instances]:
    """A 2x5 image with a mask of each size, one after the other."""
    ends = torch.tensor(sizes).cumsum(0)
    pixels = torch.arange(10).view(2, 5)
    instances = Instances((2, 5))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    instances.gt_masks = torch.stack(
        [(pixels >= end - size) & (pixels < end) for size, end in zip(sizes, ends, strict=True)]
    )
    return {"instances": instances}


def probabilities(*shares: float) -> torch.Tensor:
    """Log probabilities (K, 1, 2) whose mean over the two pixels is ``shares``."""
    first = torch.tensor(shares) * 1.5
    first[0] = 1 - first[1:].sum()
    return torch.stack([first, 2 * torch.tensor(shares) - first], dim=1)[:, None].log()


def test_the_missing_share_of_each_class_counts() -> None:
    prior = ClassRatioPrior(3, mu=0.5)
    prior.gather([labelled([0, 2], [6, 2]), labelled([1, 1], [4, 1])])
    prior.finish_step(skipped=False)
    prior.gather([labelled([0], [7])])
    prior.finish_step(skipped=False)
    assert prior.pixels.tolist() == [13, 5, 2]
    # Half of 13/20, 5/20, 2/20 is 0.325, 0.125, 0.05.
    assert prior.loss(probabilities(0.5, 0.3, 0.2)).item() == 0
    missing = (0.125 - 0.1) + (0.05 - 0.01)
    assert prior.loss(probabilities(0.89, 0.1, 0.01)).item() == pytest.approx(missing, rel=1e-5)


def test_a_step_uses_what_was_counted_before_it_and_a_skipped_one_counts_nothing() -> None:
    prior = ClassRatioPrior(3, mu=1.0)
    certain = torch.tensor([0.0, -200.0, -200.0]).view(3, 1, 1)
    prior.gather([labelled([1], [10])])
    assert prior.loss(certain).item() == 0
    prior.finish_step(skipped=True)
    assert prior.pixels.sum() == 0
    prior.gather([labelled([1, 0], [5, 5])])
    prior.finish_step(skipped=False)
    assert prior.pixels.tolist() == [5, 5, 0]
    assert prior.loss(certain).item() == pytest.approx(0.5)


def test_methods_add_the_prior_where_it_has_a_weight() -> None:
    cfg = config(CLASS_RATIO={"WEIGHT": 2.0, "MU": 1.0})
    method = EntropyMinimisation(cfg, num_classes=3)
    classifier = TwoLayerClassifier()
    source, target = [sample(0), sample(1)], [sample(2, target=True), sample(3, target=True)]
    assert method.losses(batch_of(classifier, source, target))["loss_class_ratio"] == 0
    method.finish_step(skipped=False)
    counts = torch.stack([s["sem_seg"] for s in source]).flatten().bincount(minlength=3)
    assert torch.equal(method.prior.pixels, counts.double())
    found = method.losses(batch_of(classifier, source, target))["loss_class_ratio"]
    expected = 0.0
    for image in target:
        logits = classifier.model((image["image"][None] - 128) / 64)[0]
        resized = torch.nn.functional.interpolate(logits, (32, 40), mode="bilinear")
        covered = resized.softmax(1).mean(dim=(0, 2, 3))
        shares = (counts / 2560).tolist()
        expected += sum(max(0, p - q) for p, q in zip(shares, covered.tolist(), strict=True))
    assert expected > 0.1
    assert found.item() == pytest.approx(2.0 * expected / 2)
    assert found.requires_grad
    assert method.state_dict()["prior.pixels"].sum() == 2560
    assert EntropyMinimisation(config(), num_classes=3).prior is None
