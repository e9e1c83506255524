from __future__ import annotations

import math

import numpy as np
import torch

from ddep.adaptation.prototype_assignment import assign, class_sums, rectify

BATCH, CHANNELS, CLASSES, SIZE = 2, 5, 4, (3, 2)


def softmax_of_distances(feature: np.ndarray, prototypes: np.ndarray, tau: float) -> list[float]:
    exponentials = []
    for prototype in prototypes:
        distance = math.sqrt(sum((a - b) ** 2 for a, b in zip(feature, prototype, strict=True)))
        exponentials.append(math.exp(-distance / tau))
    return [value / sum(exponentials) for value in exponentials]


def test_assignment_and_rectification_are_those_of_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(BATCH, CHANNELS, *SIZE, generator=generator)
    prototypes = torch.randn(CLASSES, CHANNELS, generator=generator)
    soft = torch.rand(BATCH, CLASSES, *SIZE, generator=generator).softmax(1)
    soft[1, :, 2, 0] = 0
    found = assign(embeddings, prototypes, torch.ones(CLASSES, dtype=torch.bool), 0.7)
    labels = rectify(found, soft, ignore_label=255)
    changed = 0
    for image in range(BATCH):
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                feature = embeddings[image, :, y, x].double().numpy()
                weights = softmax_of_distances(feature, prototypes.double().numpy(), 0.7)
                np.testing.assert_allclose(found[image, :, y, x].exp(), weights, rtol=1e-5)
                products = [
                    w * float(p) for w, p in zip(weights, soft[image, :, y, x], strict=True)
                ]
                if sum(products) == 0:
                    assert labels[image, y, x] == 255
                    continue
                rectified = [value / sum(products) for value in products]
                assert labels[image, y, x] == rectified.index(max(rectified))
                changed += int(labels[image, y, x] != soft[image, :, y, x].argmax())
    assert changed > 0


def test_a_class_without_a_prototype_gets_no_pixel() -> None:
    embeddings = torch.zeros(1, CHANNELS, 1, 1, requires_grad=True)
    prototypes = torch.eye(CLASSES, CHANNELS) * torch.tensor([3.0, 0.0, 2.0, 9.0])[:, None]
    known = torch.tensor([True, False, True, True])
    found = assign(embeddings, prototypes, known, 1.0)
    assert found.argmax() == 2
    assert found[0, 1].exp() == 0
    found[0, 0].sum().backward()
    assert embeddings.grad.isfinite().all()


def test_far_features_do_not_underflow() -> None:
    embeddings = torch.zeros(1, 1, 1, 1)
    prototypes = torch.tensor([[500.0], [100.0], [300.0]])
    found = assign(embeddings, prototypes, torch.ones(3, dtype=torch.bool), 1.0)
    soft = torch.tensor([0.9, 0.0, 0.1])[None, :, None, None]
    assert rectify(found, soft, ignore_label=255).item() == 2


def test_class_sums_are_those_of_loops() -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(BATCH, CHANNELS, *SIZE, generator=generator)
    classes = torch.randint(-1, CLASSES, (BATCH, *SIZE), generator=generator)
    classes[0, 0, 0] = 255
    sums, counts = class_sums(embeddings, classes, CLASSES)
    expected, number = np.zeros((CLASSES, CHANNELS)), np.zeros(CLASSES)
    for image, y, x in np.ndindex(BATCH, *SIZE):
        label = int(classes[image, y, x])
        if 0 <= label < CLASSES:
            expected[label] += embeddings[image, :, y, x].double().numpy()
            number[label] += 1
    np.testing.assert_allclose(sums, expected, atol=1e-12)
    np.testing.assert_array_equal(counts, number)
