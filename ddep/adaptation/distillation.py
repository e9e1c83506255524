"""ProDA's later stages: an adapted model's pseudo-labels train a fresh one."""

from __future__ import annotations

from typing import ClassVar

from detectron2.config import CfgNode
from torch import Tensor

from ddep.adaptation.method import AdaptationBatch, Method
from ddep.adaptation.pseudo_label_losses import cross_entropy, divergence
from ddep.adaptation.registry import register_method
from ddep.adaptation.target_labels import batch_labels, outside_boxes
from ddep.config_checks import check_not_negative
from ddep.data.pseudo_labels import check_pseudo_labels
from ddep.errors import UserError
from ddep.modeling.pixel_classifier import valid_pixels

_KEY = "MODEL.ADAPTATION.DISTILLATION"


@register_method
class Distillation(Method):
    """Knowledge distillation (ProDA, arXiv 2101.10979, section 3.5).

    On the strong view, outside its cut-out square, the student learns the classes of which the
    pseudo-labels are sure, and all their probabilities. In ProDA these probabilities are the
    adapted model's for the strong view, predicted in every step; here they are those of its
    pseudo-labels, so that there is no second model in memory.
    """

    name: ClassVar = "distillation"
    target_mapper: ClassVar = "target_pseudo_labels"

    def __init__(self, cfg: CfgNode, num_classes: int) -> None:
        """As :meth:`Method.__init__`."""
        super().__init__(cfg, num_classes)
        keys = cfg.MODEL.ADAPTATION.DISTILLATION
        self.threshold = keys.THRESHOLD
        self.divergence_weight = keys.DIVERGENCE_WEIGHT

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """As :meth:`Method.check`."""
        keys = cfg.MODEL.ADAPTATION.DISTILLATION
        if not 0 <= keys.THRESHOLD < 1:
            raise UserError(f"{_KEY}.THRESHOLD is {keys.THRESHOLD}; expected 0 or more, below 1")
        check_not_negative(f"{_KEY}.DIVERGENCE_WEIGHT", keys.DIVERGENCE_WEIGHT)
        check_pseudo_labels(cfg)

    def losses(self, batch: AdaptationBatch) -> dict[str, Tensor]:
        """As :meth:`Method.losses`."""
        classifier, ignore = batch.classifier, batch.classifier.ignore_label
        strong = classifier.batch_images([inputs["strong"][0] for inputs in batch.target])
        predictions = classifier.predict(classifier.features(strong.tensor))
        log_probabilities = predictions.log_probabilities[0]
        size = log_probabilities.shape[-2:]
        soft = batch_labels(batch.target, strong, size)
        boxes = [inputs["cut_out"] for inputs in batch.target]
        valid = valid_pixels(strong, size) & outside_boxes(boxes, strong, size)
        confidence, classes = soft.max(1)
        labels = classes.masked_fill(~valid | (confidence <= self.threshold), ignore)
        losses = {
            "loss_pseudo_label": cross_entropy(log_probabilities, labels, ignore),
            "loss_divergence": self.divergence_weight * divergence(soft, log_probabilities, valid),
        }
        return {name: batch.target_mean(loss) for name, loss in losses.items()}
