"""A tiny model that predicts pixels' classes from two layers, and samples of both domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn
from torch.nn import functional as F

from ddep.adaptation import AdaptationBatch
from ddep.config import add_ddep_config
from ddep.modeling.pixel_classifier import PixelClassifier, Predictions

CLASSES = 3


class TwoLayers(nn.Module):
    """Logits of stride 4 from two 1x1 convolutions, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.full((3, 1, 1), 128.0, dtype=torch.float64))
        self.register_buffer("pixel_std", torch.full((3, 1, 1), 64.0, dtype=torch.float64))
        generator = torch.Generator().manual_seed(0)
        self.first, self.last = nn.Conv2d(3, CLASSES, 1), nn.Conv2d(CLASSES, CLASSES, 1)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.double()

    def forward(self, images: Tensor) -> list[Tensor]:
        first = self.first(F.avg_pool2d(images, 4))
        return [self.last(first.tanh()), first]


class TwoLayerClassifier(PixelClassifier):
    """The parts of :class:`TwoLayers`; its own loss is a mean over images, of the last layer."""

    def __init__(self, model: TwoLayers | None = None) -> None:
        super().__init__(model or TwoLayers(), num_classes=CLASSES, ignore_label=255)

    @property
    def num_layers(self) -> int:
        return 2

    @property
    def _size_divisibility(self) -> int:
        return 8

    def features(self, images: Tensor) -> dict[str, Tensor]:
        return {"images": images}

    def predict(self, features: dict[str, Tensor]) -> Predictions:
        logits = self.model(features["images"])
        layers = [layer.log_softmax(1) for layer in logits]
        return Predictions(logits, layers, logits[1])

    def losses(
        self,
        predictions: Predictions,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        normalisers: Mapping[str, Tensor] | None,
    ) -> dict[str, Tensor]:
        del images, normalisers
        return {"loss_sem_seg": supervised_loss(predictions.outputs[0], batched_inputs)}


def supervised_loss(logits: Tensor, samples: Sequence[dict[str, Any]]) -> Tensor:
    """Cross entropy of the class at each cell's first pixel; images of one size."""
    labels = torch.stack([sample["sem_seg"][::4, ::4] for sample in samples])
    return F.cross_entropy(logits, labels)


def sample(seed: int, size: tuple[int, int] = (32, 40), *, target: bool = False) -> dict[str, Any]:
    """An image, with labels unless it is of the target."""
    generator = torch.Generator().manual_seed(seed)
    image = 255 * torch.rand(3, *size, generator=generator, dtype=torch.float64)
    named = {"image": image, "file_name": f"{seed}.png"}
    if target:
        return {**named, "is_target": True}
    labels = torch.randint(0, CLASSES, size, generator=generator)
    instances = Instances(size)
    instances.gt_classes = labels.unique()
    instances.gt_masks = labels == instances.gt_classes[:, None, None]
    return {**named, "sem_seg": labels, "instances": instances}


def batch_of(
    classifier: PixelClassifier,
    source: list[dict[str, Any]],
    target: list[dict[str, Any]],
    counts: tuple[int, int] | None = None,
) -> AdaptationBatch:
    """What a method sees; ``counts`` of the whole batch if this is a part of it."""
    images = classifier.images(source)
    source_count, target_count = counts or (len(source), len(target))
    return AdaptationBatch(
        classifier=classifier,
        teacher=None,
        source=source,
        target=target,
        source_images=images,
        source_predictions=classifier.predict(classifier.features(images.tensor)),
        source_count=torch.tensor(source_count, dtype=torch.float64),
        target_count=torch.tensor(target_count, dtype=torch.float64),
    )


def config(**sections: dict[str, Any]) -> CfgNode:
    """The default config, with these values in the sections of MODEL.ADAPTATION."""
    cfg = get_cfg()
    add_ddep_config(cfg)
    for section, values in sections.items():
        cfg.MODEL.ADAPTATION[section].update(values)
    return cfg
