from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.structures import ImageList
from torch import Tensor, nn

from ddep.adaptation import AdaptationBatch, Distillation, Method, Prototypes
from ddep.config import add_ddep_config
from ddep.data.pseudo_labels import PseudoLabels
from ddep.errors import UserError
from ddep.modeling.pixel_classifier import PixelClassifier, Predictions

CLASSES, CHANNELS, STRIDE, IGNORE = 3, 4, 2, 255
# Of three target images: heights and widths; the smaller ones are padded.
SIZES = ((8, 8), (8, 6), (5, 8))


class Tiny(nn.Module):
    """Embeddings are a convolution of each square of two by two pixels, logits another."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, CHANNELS, STRIDE, STRIDE)
        self.classify = nn.Conv2d(CHANNELS, CLASSES, 1)


class TinyClassifier(PixelClassifier):
    def __init__(self) -> None:
        super().__init__(Tiny(), num_classes=CLASSES, ignore_label=IGNORE)

    def batch_images(self, images: list[Tensor]) -> ImageList:
        return ImageList.from_tensors([image.float() / 255 for image in images], 4)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        return {"res2": images}

    def predict(self, features: dict[str, Tensor]) -> Predictions:
        embeddings = self.model.embed(features["res2"])
        logits = self.model.classify(embeddings)
        return Predictions(logits, [logits.log_softmax(1)], embeddings)

    losses = _size_divisibility = None


@pytest.fixture
def cfg(tmp_path: Path) -> CfgNode:
    cfg = get_cfg()
    add_ddep_config(cfg)
    numbers = np.random.default_rng(0)
    means = numbers.normal(size=(CLASSES, CHANNELS)).astype(np.float32)
    np.savez(tmp_path / "prototypes.npz", means=means, images=np.array([4, 2, 1]))
    PseudoLabels("/", ["images:x"], CLASSES, None, {}, []).write(tmp_path)
    cfg.MODEL.ADAPTATION.PSEUDO_LABELS = str(tmp_path)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = CLASSES
    cfg.DATASETS.TARGET = ("images:x",)
    return cfg


@pytest.fixture
def samples() -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)

    def image(size: tuple[int, int]) -> Tensor:
        return torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8)

    return [
        {
            "image": image(size),
            "strong": [image(size)],
            "cut_out": (0, 2, 4, 6),
            "pseudo_label_stride": STRIDE,
            "pseudo_label": (
                5 * torch.rand(CLASSES, -(-size[0] // 2), -(-size[1] // 2), generator=generator)
            ).softmax(0),
        }
        for size in SIZES
    ]


def batch_of(
    samples: list[dict[str, Any]], student: PixelClassifier, teacher: PixelClassifier, count: int
) -> AdaptationBatch:
    number = torch.tensor(count, dtype=torch.float64)
    none: Any = None
    predict = lambda images: teacher.predict(teacher.features(images))  # noqa: E731
    return AdaptationBatch(
        classifier=student,
        teacher=type("Teacher", (), {"predict": staticmethod(torch.no_grad()(predict))})(),
        source=[],
        target=samples,
        source_images=none,
        source_predictions=none,
        source_count=number,
        target_count=number,
    )


@pytest.fixture
def models() -> tuple[TinyClassifier, TinyClassifier]:
    torch.manual_seed(0)
    return TinyClassifier(), TinyClassifier()


def outputs(classifier: PixelClassifier, image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and embeddings (h, w, ...) of one image, by loops over an unpadded model."""
    embed, classify = classifier.model.embed, classifier.model.classify
    height, width = image.shape[-2:]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    pixels = np.zeros((3, rows * 2, columns * 2))
    pixels[:, :height, :width] = image.double().numpy() / 255
    kernel, bias = embed.weight.detach().double().numpy(), embed.bias.detach().double().numpy()
    matrix = classify.weight.detach().double().numpy()[:, :, 0, 0]
    probabilities = np.zeros((rows, columns, CLASSES))
    embeddings = np.zeros((rows, columns, CHANNELS))
    for y, x in np.ndindex(rows, columns):
        square = pixels[:, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        embeddings[y, x] = (kernel * square).sum((1, 2, 3)) + bias
        logits = matrix @ embeddings[y, x] + classify.bias.detach().double().numpy()
        probabilities[y, x] = np.exp(logits) / np.exp(logits).sum()
    return probabilities, embeddings


def nearness(embedding: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    exponentials = np.array([math.exp(-math.dist(embedding, one)) for one in prototypes])
    return exponentials / exponentials.sum()


def centres(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Pixels of the map whose centres are in the image."""
    return [
        (y, x) for y in range(4) for x in range(4) if 2 * y + 1 < size[0] and 2 * x + 1 < size[1]
    ]


def outside(pixel: tuple[int, int]) -> bool:
    """Of the square that is cut out: rows 0 to 3 and columns 2 to 5 of the image."""
    y, x = pixel
    return not (y < 2 and 1 <= x < 3)


def test_losses_and_prototypes_are_those_of_loops(
    cfg: CfgNode, samples: list[dict[str, Any]], models: tuple[TinyClassifier, TinyClassifier]
) -> None:
    student, teacher = models
    method = Prototypes(cfg, CLASSES)
    prototypes = method.prototypes.double().numpy()
    expected = dict.fromkeys(("loss_pseudo_label", "loss_regulariser", "loss_assignment"), 0.0)
    sums, counts = np.zeros((CLASSES, CHANNELS)), np.zeros(CLASSES)
    for sample, size in zip(samples, SIZES, strict=True):
        taught, features = outputs(teacher, sample["image"])
        weak, _ = outputs(student, sample["image"])
        _, strong = outputs(student, sample["strong"][0])
        pixels = centres(size)
        free = [pixel for pixel in pixels if outside(pixel)]
        for y, x in pixels:
            near = nearness(features[y, x], prototypes)
            rectified = near * sample["pseudo_label"][:, y, x].double().numpy()
            label = int((rectified / rectified.sum()).argmax())
            p = weak[y, x]
            one_hot = np.where(np.arange(CLASSES) == label, 1, 1e-4)
            symmetric = -0.1 * math.log(p[label]) - (p * np.log(one_hot)).sum()
            expected["loss_pseudo_label"] += symmetric / len(pixels)
            expected["loss_regulariser"] -= 0.1 * np.log(p).mean() / len(pixels)
            own = int(taught[y, x].argmax())
            sums[own] += features[y, x]
            counts[own] += 1
        for y, x in free:
            q = nearness(features[y, x], prototypes)
            p = nearness(strong[y, x], prototypes)
            divergence = (q * np.log(q / p)).sum() / CLASSES
            expected["loss_assignment"] += 10 * divergence / len(free)
    losses = method.losses(batch_of(samples, student, teacher, len(samples)))
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name] / len(samples), rel=1e-5)
    before = method.prototypes.clone()
    method.finish_step(skipped=False)
    for label in range(CLASSES):
        moved = prototypes[label]
        if counts[label]:
            moved = 0.9999 * moved + 0.0001 * sums[label] / counts[label]
        np.testing.assert_allclose(method.prototypes[label], moved, rtol=1e-6)
    assert not torch.equal(method.prototypes, before)


def test_parts_add_up_to_the_batch(
    cfg: CfgNode, samples: list[dict[str, Any]], models: tuple[TinyClassifier, TinyClassifier]
) -> None:
    cfg.MODEL.ADAPTATION.PROTOTYPES.MOMENTUM = 0.5
    whole, parts = Prototypes(cfg, CLASSES), Prototypes(cfg, CLASSES)
    total = whole.losses(batch_of(samples, *models, 3))
    found = [parts.losses(batch_of([sample], *models, 3)) for sample in samples]
    for name, loss in total.items():
        torch.testing.assert_close(sum(part[name] for part in found), loss)
    whole.finish_step(skipped=False)
    parts.finish_step(skipped=False)
    torch.testing.assert_close(parts.prototypes, whole.prototypes)


def test_a_skipped_step_leaves_the_prototypes_and_drops_what_was_gathered(
    cfg: CfgNode, samples: list[dict[str, Any]], models: tuple[TinyClassifier, TinyClassifier]
) -> None:
    method = Prototypes(cfg, CLASSES)
    before = method.prototypes.clone()
    method.losses(batch_of(samples, *models, 3))
    method.finish_step(skipped=True)
    method.finish_step(skipped=False)
    assert torch.equal(method.prototypes, before)


def test_a_class_without_prototype_takes_its_first_mean(
    cfg: CfgNode, samples: list[dict[str, Any]], models: tuple[TinyClassifier, TinyClassifier]
) -> None:
    method = Prototypes(cfg, CLASSES)
    method.known[:] = False
    method.losses(batch_of(samples, *models, 3))
    [(sums, counts)] = method._sums
    method.finish_step(skipped=False)
    assert torch.equal(method.known, counts > 0) and method.known.any()
    for label in method.known.nonzero().flatten():
        mean = (sums[label] / counts[label]).float()
        torch.testing.assert_close(method.prototypes[label], mean)


def test_distillation_is_that_of_loops(
    cfg: CfgNode, samples: list[dict[str, Any]], models: tuple[TinyClassifier, TinyClassifier]
) -> None:
    student, _ = models
    cfg.MODEL.ADAPTATION.DISTILLATION.THRESHOLD = 0.6
    cfg.MODEL.ADAPTATION.DISTILLATION.DIVERGENCE_WEIGHT = 2.0
    samples[1]["pseudo_label"][:] = 1 / 3  # an image without a sure pixel
    cross, divergence = 0.0, 0.0
    for sample, size in zip(samples, SIZES, strict=True):
        strong, _ = outputs(student, sample["strong"][0])
        pixels = [pixel for pixel in centres(size) if outside(pixel)]
        soft = sample["pseudo_label"].double().numpy()
        sure = [(y, x) for y, x in pixels if soft[:, y, x].max() > 0.6]
        for y, x in sure:
            cross -= math.log(strong[y, x][soft[:, y, x].argmax()]) / len(sure)
        for y, x in pixels:
            q = soft[:, y, x]
            divergence += 2 * (q * np.log(q / strong[y, x])).sum() / CLASSES / len(pixels)
    losses = Distillation(cfg, CLASSES).losses(batch_of(samples, student, student, 3))
    assert losses["loss_pseudo_label"].item() == pytest.approx(cross / 3, rel=1e-5)
    assert losses["loss_divergence"].item() == pytest.approx(divergence / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("method", "key", "value", "message"),
    [
        (Prototypes, "PROTOTYPES.TEMPERATURE", 0.0, "TEMPERATURE is 0.0; expected more than 0"),
        (Prototypes, "PROTOTYPES.MOMENTUM", 1.5, "MOMENTUM is 1.5; expected 0 to 1"),
        (Prototypes, "PROTOTYPES.REVERSE_WEIGHT", -1.0, "REVERSE_WEIGHT is -1.0; expected 0 or"),
        (Distillation, "DISTILLATION.THRESHOLD", 1.0, "THRESHOLD is 1.0; expected 0 or more, bel"),
        (Distillation, "PSEUDO_LABELS", "", "PSEUDO_LABELS is empty; make pseudo-labels with"),
    ],
)
def test_impossible_values_are_one_line(
    cfg: CfgNode, method: type[Method], key: str, value: Any, message: str
) -> None:
    method.check(cfg)
    cfg.merge_from_list([f"MODEL.ADAPTATION.{key}", value])
    with pytest.raises(UserError, match=message):
        method.check(cfg)


def test_prototypes_of_another_model_are_one_line(
    cfg: CfgNode, samples: list[dict[str, Any]], models: tuple[TinyClassifier, TinyClassifier]
) -> None:
    method = Prototypes(cfg, CLASSES)
    method.prototypes = method.prototypes[:, :3]
    with pytest.raises(UserError, match="has prototypes of 3 channels; the model classifies pix"):
        method.losses(batch_of(samples, *models, 3))
