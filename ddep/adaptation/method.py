"""What every method of adaptation is: losses on target images, and statistics that it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import ImageList
from torch import Tensor, nn

from ddep.adaptation.teacher import Teacher
from ddep.data.record import Record
from ddep.modeling.pixel_classifier import PixelClassifier, Predictions


@dataclass
class AdaptationBatch:
    """What a method sees of a step's batch, or of a part of it.

    Attributes:
        classifier: the model in parts.
        teacher: the model with averaged weights; None without SOLVER.EMA.
        source, target: samples of the labelled and of the target images.
        source_images: the labelled images, normalised and padded.
        source_predictions: the model's for them, in training mode, with gradients.
        source_count, target_count: how many images of each kind the whole batch has, all parts
            included, averaged over the processes; float64 scalars.
    """

    classifier: PixelClassifier
    teacher: Teacher | None
    source: list[dict[str, Any]]
    target: list[dict[str, Any]]
    source_images: ImageList
    source_predictions: Predictions
    source_count: Tensor
    target_count: Tensor

    def source_mean(self, per_image: Tensor) -> Tensor:
        """This part's share of the mean over the batch's labelled images.

        Args:
            per_image: (number of ``source``,), a loss of each image.
        """
        return per_image.sum() / self.source_count.to(per_image.dtype)

    def target_mean(self, per_image: Tensor) -> Tensor:
        """As :meth:`source_mean`, of the target images."""
        return per_image.sum() / self.target_count.to(per_image.dtype)


class Method(nn.Module):
    """Losses on target images.

    Parameters are those of discriminators, which have an optimizer of their own. Buffers are
    running statistics. Both are saved in checkpoints and resumed.

    Attributes:
        name: the value of MODEL.ADAPTATION.METHOD.
        target_mapper: the registered mapper that reads DATASETS.TARGET.
        needs_teacher: whether SOLVER.EMA, whose average is the teacher, must be enabled.
        in_pairs: whether target images come in pairs, one after the other, the second drawn at
            random for the first: the same pairs for any number of processes and parts.
    """

    name: ClassVar[str]
    target_mapper: ClassVar[str] = "target"
    needs_teacher: ClassVar[bool] = False
    in_pairs: ClassVar[bool] = False

    def __init__(self, cfg: CfgNode, num_classes: int) -> None:
        """
        Args:
            cfg: the whole config.
            num_classes: K, of the model.
        """
        super().__init__()
        self.num_classes = num_classes

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """Raise :class:`UserError` if one of the method's keys has an impossible value."""

    @classmethod
    def target_weights(cls, cfg: CfgNode, sets: Sequence[Sequence[Record]]) -> np.ndarray | None:
        """How often each target image is drawn, (N,) float64; None: all in turn.

        Args:
            cfg: the whole config.
            sets: the records of each target set.
        """
        return None

    def check_model(self, classifier: PixelClassifier) -> None:
        """Raise :class:`UserError` if the method cannot work with a model."""

    def optimizer(self) -> torch.optim.Optimizer | None:
        """A new optimizer of the parameters, with ``fused=True``; None if there are none.

        SOLVER's schedule multiplies its learning rates.
        """
        return None

    def losses(self, batch: AdaptationBatch) -> dict[str, Tensor]:
        """Compute the method's weighted losses, by names that start with ``loss_``.

        Each is a mean over the images of the whole batch, of which this part has its share, see
        :meth:`AdaptationBatch.target_mean`. Nothing random is drawn here except from a sample's
        ``seed``: two processes then do what one does. Statistics of the batch are gathered here,
        and used from the next step on.
        """
        raise NotImplementedError

    def finish_step(self, skipped: bool) -> None:
        """Move the statistics gathered in a step into the buffers; all processes call this.

        Args:
            skipped: whether the step left the weights as they were, because of a NaN; the
                statistics are dropped then.
        """
