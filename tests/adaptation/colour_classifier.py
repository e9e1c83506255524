"""The smallest classifier of pixels, and batches of target images for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddep.adaptation import AdaptationBatch
from ddep.modeling.pixel_classifier import PixelClassifier, Predictions

CLASSES, STRIDE = 4, 4


class ColourClassifier(PixelClassifier):
    """Classifies the mean colour of squares of 4 pixels, in float64."""

    def __init__(self, seed: int) -> None:
        model = nn.Conv2d(3, CLASSES, 1).double()
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            parameter.data = 2 * torch.randn(parameter.shape, generator=generator).double()
        model.register_buffer("pixel_mean", torch.full((3, 1, 1), 128.0).double())
        model.register_buffer("pixel_std", torch.full((3, 1, 1), 64.0).double())
        super().__init__(model, num_classes=CLASSES, ignore_label=255)

    @property
    def _size_divisibility(self) -> int:
        return 8

    def features(self, images: Tensor) -> dict[str, Tensor]:
        return {"images": images}

    def predict(self, features: dict[str, Tensor]) -> Predictions:
        logits = self.model(F.avg_pool2d(features["images"], STRIDE))
        return Predictions(logits, [logits.log_softmax(1)], logits)

    def losses(self, *_: Any) -> dict[str, Tensor]:
        raise NotImplementedError

    def alone(self, image: Tensor) -> Tensor:
        """Logarithms of probabilities of one image without padding, (K, h, w)."""
        images = (image.double() - 128) / 64
        return self.predict(self.features(images[None])).log_probabilities[0][0]


def target_batch(
    student: ColourClassifier,
    teacher: ColourClassifier,
    samples: list[dict[str, Any]],
    count: int,
) -> AdaptationBatch:
    """A part of a batch of ``count`` target images, without labelled ones."""
    teacher.model.requires_grad_(False)
    return AdaptationBatch(
        classifier=student,
        teacher=SimpleNamespace(predict=lambda images: teacher.predict(teacher.features(images))),
        source=[],
        target=samples,
        source_images=None,
        source_predictions=None,
        source_count=torch.tensor(0.0),
        target_count=torch.tensor(float(count), dtype=torch.float64),
    )
