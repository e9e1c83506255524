"""Probabilities of classes at a trained model's own resolution, and mean features of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from detectron2.structures import ImageList
from torch import Tensor

from ddep.adaptation.prototype_assignment import class_sums
from ddep.data.map_sampling import sample_map
from ddep.data.pseudo_labels import SoftLabel
from ddep.inference.predictor import Predictor
from ddep.modeling.pixel_classifier import Predictions, valid_pixels


class SoftPrediction(NamedTuple):
    """What a model says about one image, on the CPU.

    Attributes:
        label: the probabilities of classes.
        class_means: (K, C) float32, the mean feature of the pixels of each predicted class; 0 for
            classes that the image does not have.
        class_pixels: (K,) int64, how many pixels of the map are of each predicted class.
    """

    label: SoftLabel
    class_means: Tensor
    class_pixels: Tensor


class SoftPredictor:
    """Predicts batches as :func:`ddep.inference.pipeline.run_pipeline` asks for."""

    def __init__(self, predictor: Predictor, *, flip: bool) -> None:
        """
        Args:
            predictor: of a model that classifies pixels, which is called on whole images.
            flip: average probabilities with those of the mirrored image.
        """
        self.predictor = predictor
        self.flip = flip
        self.classifier = predictor.task.pixel_classifier(predictor.cfg, predictor.model)

    def map_record(self, record: Mapping[str, Any], position: int) -> dict[str, Any]:
        """As :meth:`Predictor.map_record`."""
        return self.predictor.map_record(record, position)

    @torch.no_grad()
    def predict(self, inputs: Sequence[Mapping[str, Any]]) -> list[SoftPrediction]:
        """Run the model on a batch of what :meth:`map_record` made."""
        images, predictions = self._run([sample["image"] for sample in inputs])
        probabilities = predictions.log_probabilities[0].exp()
        size, padded = probabilities.shape[-2:], images.tensor.shape[-2:]
        classes = probabilities.argmax(1).masked_fill(~valid_pixels(images, size), -1)
        mirrored = None
        if self.flip:
            _, mirror_predictions = self._run([sample["image"].flip(-1) for sample in inputs])
            mirrored = mirror_predictions.log_probabilities[0].exp()
        results = []
        for i, (height, width) in enumerate(images.image_sizes):
            covered = height * size[0] / padded[0], width * size[1] / padded[1]
            label = probabilities[i, :, : math.ceil(covered[0]), : math.ceil(covered[1])]
            if mirrored is not None:
                label = (label + _mirror(mirrored[i], covered)) / 2
            means, pixels = self._class_means(predictions.embeddings[i], classes[i])
            results.append(SoftPrediction(SoftLabel(label.cpu(), covered), means, pixels))
        return results

    def _run(self, images: Sequence[Tensor]) -> tuple[ImageList, Predictions]:
        batch = self.classifier.batch_images(images)
        return batch, self.classifier.predict(self.classifier.features(batch.tensor))

    def _class_means(self, embeddings: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """(C, h, w), (h, w) -> ``class_means`` and ``class_pixels`` of an image."""
        sums, pixels = class_sums(embeddings[None], classes[None], self.classifier.num_classes)
        means = sums / pixels.clamp_min(1)[:, None]
        return means.float().cpu(), pixels.long().cpu()


def _mirror(maps: Tensor, covered: tuple[float, float]) -> Tensor:
    """Mirror maps (K, h, w) within the part that lies over the image."""
    rows, columns = (torch.arange(math.ceil(length)) + 0.5 for length in covered)
    return sample_map(maps, rows, covered[1] - columns)
