"""What methods have in common that look at maps of class probabilities, of one layer or several."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode
from torch import Tensor

from ddep.adaptation.class_ratio import ClassRatioPrior
from ddep.adaptation.maps import image_maps
from ddep.adaptation.method import AdaptationBatch, Method
from ddep.errors import UserError
from ddep.modeling.pixel_classifier import PixelClassifier


class OutputSpaceMethod(Method):
    """A method with losses on the class probabilities of the decoder's last layers.

    The class-ratio prior, if it has a weight, is about the last layer.

    Attributes:
        section: of MODEL.ADAPTATION. Its WEIGHTS are those of the layers, the last one first.
    """

    section: ClassVar[str]

    def __init__(self, cfg: CfgNode, num_classes: int) -> None:
        """As :class:`Method`.

        Raises:
            UserError: there is only one class.
        """
        super().__init__(cfg, num_classes)
        if num_classes < 2:
            raise UserError(
                f"MODEL.ADAPTATION.METHOD {self.name} needs at least 2 classes, but the model has "
                f"{num_classes}; correct MODEL.SEM_SEG_HEAD.NUM_CLASSES"
            )
        self.weights = list(cfg.MODEL.ADAPTATION[self.section].WEIGHTS)
        self.prior_weight = cfg.MODEL.ADAPTATION.CLASS_RATIO.WEIGHT
        self.prior = (
            ClassRatioPrior(num_classes, cfg.MODEL.ADAPTATION.CLASS_RATIO.MU)
            if self.prior_weight
            else None
        )

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """As :meth:`Method.check`."""
        adaptation = cfg.MODEL.ADAPTATION
        weights, prior = adaptation[cls.section].WEIGHTS, adaptation.CLASS_RATIO
        if not weights or not all(_is_weight(weight) for weight in weights):
            raise UserError(
                f"MODEL.ADAPTATION.{cls.section}.WEIGHTS is {weights!r}; expected a list with a "
                "weight of at least 0 for each layer, the decoder's last one first"
            )
        if not _is_weight(prior.WEIGHT):
            raise UserError(
                f"MODEL.ADAPTATION.CLASS_RATIO.WEIGHT is {prior.WEIGHT!r}; expected at least 0"
            )
        if not (_is_weight(prior.MU) and prior.MU <= 1):
            raise UserError(f"MODEL.ADAPTATION.CLASS_RATIO.MU is {prior.MU!r}; expected 0 to 1")

    def check_model(self, classifier: PixelClassifier) -> None:
        """As :meth:`Method.check_model`: is there a layer for each weight?"""
        if len(self.weights) > classifier.num_layers:
            raise UserError(
                f"MODEL.ADAPTATION.{self.section}.WEIGHTS has {len(self.weights)} weights, but the "
                f"number of layers that the model predicts from is {classifier.num_layers}; "
                "expected at most one weight for each"
            )

    def losses(self, batch: AdaptationBatch) -> dict[str, Tensor]:
        """As :meth:`Method.losses`."""
        images = batch.classifier.images(batch.target)
        predictions = batch.classifier.predict(batch.classifier.features(images.tensor))
        losses: dict[str, Tensor] = {}
        for layer in range(len(self.weights)):
            maps = image_maps(predictions.log_probabilities[layer], images)
            suffix = f"_{layer}" if layer else ""
            of_layer = self.layer_losses(batch, layer, maps)
            losses |= {f"{name}{suffix}": loss for name, loss in of_layer.items()}
            if layer == 0 and self.prior is not None:
                self.prior.gather(batch.source)
                shortage = batch.target_mean(torch.stack([self.prior.loss(m) for m in maps]))
                losses["loss_class_ratio"] = self.prior_weight * shortage
        return losses

    @abstractmethod
    def layer_losses(
        self, batch: AdaptationBatch, layer: int, target_maps: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """The losses of one layer; :meth:`losses` adds the number of an earlier one to names.

        Args:
            batch: as in :meth:`losses`.
            layer: 0 is the last one.
            target_maps: of each target image (K, H, W) log probabilities of that layer.
        """

    def finish_step(self, skipped: bool) -> None:
        """As :meth:`Method.finish_step`."""
        if self.prior is not None:
            self.prior.finish_step(skipped)


def _is_weight(value: Any) -> bool:
    return isinstance(value, (int, float)) and value >= 0
