"""ProDA: pseudo-labels that are corrected by prototypes during training."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from detectron2.config import CfgNode
from torch import Tensor

from ddep.adaptation.method import AdaptationBatch, Method
from ddep.adaptation.prototype_assignment import assign, class_sums, rectify
from ddep.adaptation.pseudo_label_losses import (
    cross_entropy,
    divergence,
    regulariser,
    reverse_cross_entropy,
)
from ddep.adaptation.registry import register_method
from ddep.adaptation.target_labels import batch_labels, outside_boxes
from ddep.config_checks import check_not_negative
from ddep.data.pseudo_labels import KEY, PROTOTYPES, check_pseudo_labels, read_arrays
from ddep.errors import UserError
from ddep.modeling.normalisers import sum_over_processes
from ddep.modeling.pixel_classifier import valid_pixels

_KEY = "MODEL.ADAPTATION.PROTOTYPES"


@register_method
class Prototypes(Method):
    """Prototypical pseudo-label denoising (ProDA, arXiv 2101.10979), its first stage.

    A class's prototype is the mean of its pixels' features. The nearer the teacher's feature of a
    pixel is to it, the more the soft pseudo-label's probability of the class counts. The student
    learns the class that comes out on the weak view, and the teacher's nearness to all prototypes
    on the strong view. The prototypes follow the teacher's features.
    """

    name: ClassVar = "prototypes"
    target_mapper: ClassVar = "target_pseudo_labels"
    needs_teacher: ClassVar = True

    prototypes: Tensor  # (K, C) float32
    known: Tensor  # (K,) bool: which classes have one

    def __init__(self, cfg: CfgNode, num_classes: int) -> None:
        """As :meth:`Method.__init__`. Reads the initial prototypes."""
        super().__init__(cfg, num_classes)
        keys = cfg.MODEL.ADAPTATION.PROTOTYPES
        self.temperature = keys.TEMPERATURE
        self.momentum = keys.MOMENTUM
        self.cross_entropy_weight = keys.CROSS_ENTROPY_WEIGHT
        self.reverse_weight = keys.REVERSE_WEIGHT
        self.consistency_weight = keys.CONSISTENCY_WEIGHT
        self.regulariser_weight = keys.REGULARISER_WEIGHT
        self.folder = cfg.MODEL.ADAPTATION.PSEUDO_LABELS
        means, images = read_arrays(Path(self.folder, PROTOTYPES), "means", "images")
        self.register_buffer("prototypes", torch.from_numpy(means).float())
        self.register_buffer("known", torch.from_numpy(images > 0))
        self._sums: list[tuple[Tensor, Tensor]] = []

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """As :meth:`Method.check`."""
        keys = cfg.MODEL.ADAPTATION.PROTOTYPES
        if keys.TEMPERATURE <= 0:
            raise UserError(f"{_KEY}.TEMPERATURE is {keys.TEMPERATURE}; expected more than 0")
        if not 0 <= keys.MOMENTUM <= 1:
            raise UserError(f"{_KEY}.MOMENTUM is {keys.MOMENTUM}; expected 0 to 1")
        for key in ("CROSS_ENTROPY", "REVERSE", "CONSISTENCY", "REGULARISER"):
            check_not_negative(f"{_KEY}.{key}_WEIGHT", keys[f"{key}_WEIGHT"])
        check_pseudo_labels(cfg)

    def losses(self, batch: AdaptationBatch) -> dict[str, Tensor]:
        """As :meth:`Method.losses`."""
        classifier, ignore = batch.classifier, batch.classifier.ignore_label
        weak = classifier.images(batch.target)
        teacher = batch.teacher.predict(weak.tensor)
        self._check_channels(teacher.embeddings)
        size = teacher.embeddings.shape[-2:]
        valid = valid_pixels(weak, size)
        near = assign(teacher.embeddings, self.prototypes, self.known, self.temperature)
        soft = batch_labels(batch.target, weak, size)
        labels = rectify(near, soft, ignore).masked_fill(~valid, ignore)
        self._gather(teacher.embeddings, teacher.log_probabilities[0], valid)

        predictions = classifier.predict(classifier.features(weak.tensor))
        log_probabilities = predictions.log_probabilities[0]
        symmetric = self.cross_entropy_weight * cross_entropy(
            log_probabilities, labels, ignore
        ) + self.reverse_weight * reverse_cross_entropy(log_probabilities, labels, ignore)
        collapse = self.regulariser_weight * regulariser(log_probabilities, valid)
        losses = {"loss_pseudo_label": symmetric, "loss_regulariser": collapse}
        if self.consistency_weight:
            strong = classifier.batch_images([inputs["strong"][0] for inputs in batch.target])
            student = classifier.predict(classifier.features(strong.tensor))
            losses["loss_assignment"] = self.consistency_weight * divergence(
                near.exp(),
                assign(student.embeddings, self.prototypes, self.known, self.temperature),
                valid & outside_boxes([inputs["cut_out"] for inputs in batch.target], weak, size),
            )
        return {name: batch.target_mean(loss) for name, loss in losses.items()}

    @torch.no_grad()
    def finish_step(self, skipped: bool) -> None:
        """As :meth:`Method.finish_step`: move each class's prototype to its mean in the batch.

        A class without a prototype gets the mean itself.
        """
        gathered, self._sums = self._sums, []
        if skipped or not gathered:
            return
        sums = torch.stack([part for part, _ in gathered]).sum(0)
        counts = torch.stack([part for _, part in gathered]).sum(0)
        sum_over_processes(sums, counts)
        seen = counts > 0
        means = (sums / counts.clamp_min(1)[:, None]).float()
        momentum = torch.where(self.known, self.momentum, 0.0)[:, None]
        moved = momentum * self.prototypes + (1 - momentum) * means
        self.prototypes.copy_(torch.where(seen[:, None], moved, self.prototypes))
        self.known |= seen

    @torch.no_grad()
    def _gather(self, embeddings: Tensor, log_probabilities: Tensor, valid: Tensor) -> None:
        classes = log_probabilities.argmax(1).masked_fill(~valid, -1)
        self._sums.append(class_sums(embeddings, classes, self.num_classes))

    def _check_channels(self, embeddings: Tensor) -> None:
        found, expected = self.prototypes.shape[1], embeddings.shape[1]
        if found != expected:
            raise UserError(
                f"{KEY} {self.folder} has prototypes of {found} channels; the model classifies "
                f"pixels by {expected}: make them with a model of this config"
            )
