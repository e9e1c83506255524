"""The plain mean teacher: the student learns what the teacher is sure of."""

from __future__ import annotations

from typing import ClassVar

from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from ddep.adaptation.image_means import image_means
from ddep.adaptation.method import AdaptationBatch, Method
from ddep.adaptation.registry import register_method
from ddep.config_checks import check_not_negative, check_probability
from ddep.modeling.pixel_classifier import valid_pixels


@register_method
class MeanTeacher(Method):
    """``loss_teacher``: cross entropy of strong views with the teacher's classes of weak views.

    The teacher is the moving average of the weights (Mean Teacher, arXiv 1703.01780), and its
    class counts where its probability reaches a threshold, as in FixMatch (arXiv 2001.07685).
    Of a model with several decoder layers, the last one learns and teaches.
    """

    name: ClassVar = "teacher"
    target_mapper: ClassVar = "target_strong"
    needs_teacher: ClassVar = True

    def __init__(self, cfg: CfgNode, num_classes: int) -> None:
        """As :class:`Method`."""
        super().__init__(cfg, num_classes)
        self.weight = cfg.MODEL.ADAPTATION.TEACHER.WEIGHT
        self.threshold = cfg.MODEL.ADAPTATION.TEACHER.THRESHOLD

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """As :meth:`Method.check`."""
        path, keys = "MODEL.ADAPTATION.TEACHER", cfg.MODEL.ADAPTATION.TEACHER
        check_probability(f"{path}.THRESHOLD", keys.THRESHOLD)
        check_not_negative(f"{path}.WEIGHT", keys.WEIGHT)

    def losses(self, batch: AdaptationBatch) -> dict[str, Tensor]:
        """As :meth:`Method.losses`."""
        classifier = batch.classifier
        weak = classifier.images(batch.target)
        strong = classifier.batch_images([sample["strong"][0] for sample in batch.target])
        taught = batch.teacher.predict(weak.tensor).log_probabilities[0]
        learned = classifier.predict(classifier.features(strong.tensor)).log_probabilities[0]
        valid = valid_pixels(weak, taught.shape[-2:])
        of_images = learn_sure_pixels(learned, taught, valid, self.threshold)
        return {"loss_teacher": self.weight * batch.target_mean(of_images)}


def learn_sure_pixels(learned: Tensor, taught: Tensor, valid: Tensor, threshold: float) -> Tensor:
    """Cross entropy with the teacher's most probable classes, where it is sure of them.

    Args:
        learned: logarithms of the student's class probabilities, (B, K, h, w).
        taught: of the teacher's.
        valid: (B, h, w) bool, False in the padding.
        threshold: the least probability of a class that counts.

    Returns:
        (B,): each image's mean over all valid pixels; unsure ones count as 0.
    """
    confidence, labels = taught.exp().max(1)
    values = F.nll_loss(learned, labels, reduction="none")
    return image_means(values.masked_fill(confidence < threshold, 0), valid)
