"""Self-supervised augmentation consistency (DA-SAC, arXiv 2105.00097; visinf/da-sac)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from ddep.adaptation.class_shares import ClassShares
from ddep.adaptation.image_means import image_means
from ddep.adaptation.method import AdaptationBatch, Method
from ddep.adaptation.registry import register_method
from ddep.adaptation.warping import fuse_views, on_canvas
from ddep.config_checks import check_not_negative, check_probability
from ddep.data.importance import importance_weights, read_class_pixels
from ddep.data.pseudo_labels import check_pseudo_labels
from ddep.data.record import Record
from ddep.errors import UserError
from ddep.modeling.pixel_classifier import valid_pixels


@register_method
class SelfSupervisedConsistency(Method):
    """``loss_sac``: strong views learn what the teacher says of all views of their image together.

    The teacher's probabilities of the clean views are averaged in the image's frame and warped back
    to each view. There, a class counts above a threshold of its own, which is lower for rare
    classes; rare classes and sure pixels weigh more. All of it happens at the resolution of the
    decoder's predictions, of its last layer.
    """

    name: ClassVar = "sac"
    target_mapper: ClassVar = "target_crops"
    needs_teacher: ClassVar = True

    def __init__(self, cfg: CfgNode, num_classes: int) -> None:
        """As :class:`Method`."""
        super().__init__(cfg, num_classes)
        self.keys = cfg.MODEL.ADAPTATION.SAC
        self.class_shares = ClassShares(
            num_classes, self.keys.SHARE_MOMENTUM, initial=self.keys.RARE_SHARE
        )

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """As :meth:`Method.check`."""
        path, keys = "MODEL.ADAPTATION.SAC", cfg.MODEL.ADAPTATION.SAC
        for key in ("PEAK_FRACTION", "LEAST_THRESHOLD", "SHARE_MOMENTUM", "UNIFORM_SHARE"):
            check_probability(f"{path}.{key}", keys[key])
        for key in ("WEIGHT", "FOCAL_POWER"):
            check_not_negative(f"{path}.{key}", keys[key])
        if keys.RARE_SHARE <= 0:
            raise UserError(f"{path}.RARE_SHARE is {keys.RARE_SHARE}; expected more than 0")
        if cfg.MODEL.ADAPTATION.PSEUDO_LABELS:
            check_pseudo_labels(cfg)

    @classmethod
    def target_weights(cls, cfg: CfgNode, sets: Sequence[Sequence[Record]]) -> np.ndarray | None:
        """As :meth:`Method.target_weights`: importance sampling, if there are pseudo-labels."""
        folder = cfg.MODEL.ADAPTATION.PSEUDO_LABELS
        if not folder:
            return None
        file_names = (record["file_name"] for records in sets for record in records)
        class_pixels = read_class_pixels(folder, file_names)
        return importance_weights(class_pixels, cfg.MODEL.ADAPTATION.SAC.UNIFORM_SHARE)

    def losses(self, batch: AdaptationBatch) -> dict[str, Tensor]:
        """As :meth:`Method.losses`."""
        classifier, count = batch.classifier, len(batch.target[0]["views"])
        clean, strong = (
            classifier.batch_images([view for sample in batch.target for view in sample[key]])
            for key in ("views", "strong")
        )
        taught = batch.teacher.predict(clean.tensor).log_probabilities[0].exp()
        valid = valid_pixels(clean, taught.shape[-2:])
        self._gather_shares(taught, valid, count)
        to_frame = torch.cat([sample["to_frame"] for sample in batch.target]).to(taught)
        to_frame = on_canvas(to_frame, clean.image_sizes, tuple(clean.tensor.shape[-2:]))
        fused = fuse_views(taught, valid, to_frame, count)
        learned = classifier.predict(classifier.features(strong.tensor)).log_probabilities[0]
        shares = self.class_shares.shares.to(fused.dtype)
        weights, labels = self._pixel_weights(fused, valid, shares)
        values = weights * F.nll_loss(learned, labels, reduction="none")
        of_images = image_means(values, valid).unflatten(0, (-1, count)).mean(1)
        return {"loss_sac": self.keys.WEIGHT * batch.target_mean(of_images)}

    def _gather_shares(self, taught: Tensor, valid: Tensor, count: int) -> None:
        pixels = taught.masked_fill(~valid[:, None], 0).sum((2, 3), dtype=torch.float64)
        of_views = pixels / valid.sum((1, 2)).clamp_min(1)[:, None]
        self.class_shares.gather(of_views.unflatten(0, (-1, count)).mean(1))

    def _pixel_weights(
        self, probabilities: Tensor, valid: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The weight of each pixel's loss, 0 where no class counts, and the label; (B, h, w)."""
        confidence, labels = probabilities.max(1)
        confidence = confidence.masked_fill(~valid, 0)
        limits = thresholds(
            peaks(confidence, labels, self.num_classes),
            shares,
            fraction=self.keys.PEAK_FRACTION,
            least=self.keys.LEAST_THRESHOLD,
            rare=self.keys.RARE_SHARE,
        )
        counts = confidence > limits.gather(1, labels.flatten(1)).view_as(labels)
        focal = (1 - shares) ** self.keys.FOCAL_POWER
        return (focal[labels] * confidence).masked_fill(~counts, 0), labels

    def finish_step(self, skipped: bool) -> None:
        """As :meth:`Method.finish_step`."""
        self.class_shares.finish_step(skipped)


def peaks(confidence: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The highest confidence of each class in each view, (B, K); 0 of a class without pixels.

    Args:
        confidence: (B, h, w), of the most probable class.
        labels: (B, h, w) int64, that class.
        num_classes: K.
    """
    highest = confidence.new_zeros(len(confidence), num_classes)
    return highest.scatter_reduce(1, labels.flatten(1), confidence.flatten(1), "amax")


def thresholds(
    peaks: Tensor, shares: Tensor, *, fraction: float, least: float, rare: float
) -> Tensor:
    """``max(least, fraction * peak * (1 - exp(-share / rare)))``, (B, K).

    Args:
        peaks: (B, K), see :func:`peaks`.
        shares: (K,), the running share of each class.
        fraction: of the peak.
        least: no threshold is lower.
        rare: classes with a share far below it have the lowest threshold.
    """
    return (fraction * peaks * (1 - torch.exp(-shares / rare))).clamp_min(least)
