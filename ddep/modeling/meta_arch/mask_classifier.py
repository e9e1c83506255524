"""What models that predict Q classes and masks share: their parts, images and losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone, build_sem_seg_head
from detectron2.structures import ImageList
from torch import Tensor, nn

from ddep.modeling.build_criterion import build_criterion
from ddep.modeling.criterion import SetCriterion
from ddep.modeling.meta_arch.data_set_classes import check_num_classes
from ddep.modeling.meta_arch.training_samples import check_classes
from ddep.modeling.normalisers import average_over_processes


class MaskClassifier(nn.Module, ABC):
    """A backbone, a head that predicts classes and masks, and the losses of both."""

    criterion_class: ClassVar[type[SetCriterion]] = SetCriterion

    def __init__(
        self,
        *,
        backbone: nn.Module,
        sem_seg_head: nn.Module,
        criterion: SetCriterion,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int,
    ) -> None:
        """
        Args:
            backbone: images (B, 3, H, W) -> dict of feature maps.
            sem_seg_head: feature maps -> ``pred_logits``, ``pred_masks``, ``aux_outputs``.
            criterion: outputs and targets -> losses, and ``weight_dict``.
            pixel_mean, pixel_std: per channel, in units and order of the input images.
            size_divisibility: images are padded to a multiple of this; negative takes the
                backbone's own.
        """
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = sem_seg_head
        self.criterion = criterion
        if size_divisibility < 0:
            size_divisibility = backbone.size_divisibility
        self.size_divisibility = size_divisibility
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            buffer = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    @classmethod
    def parts(cls, cfg: CfgNode) -> dict[str, Any]:
        """Build the arguments of ``__init__`` from a config.

        Raises:
            UserError: the config does not fit the data set.
        """
        check_num_classes(cfg)
        backbone = build_backbone(cfg)
        sem_seg_head = build_sem_seg_head(cfg, backbone.output_shape())
        rein = cfg.MODEL.REIN
        if rein.ENABLED and rein.LINK_QUERIES:
            sem_seg_head.predictor.link_queries(backbone.rein.tokens, backbone.rein.channels)
        return {
            "backbone": backbone,
            "sem_seg_head": sem_seg_head,
            "criterion": build_criterion(cfg, sem_seg_head.num_classes, cls.criterion_class),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "size_divisibility": cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def prepare_images(self, images: Sequence[Tensor]) -> ImageList:
        """Normalise images (3, H, W), 0..255, on the model's device and pad them to one size."""
        moved = [image.to(self.device) for image in images]
        normalised = [(image - self.pixel_mean) / self.pixel_std for image in moved]
        return ImageList.from_tensors(normalised, self.size_divisibility)

    def normalisers(self, batched_inputs: list[dict[str, Any]]) -> dict[str, float]:
        """What the losses of ``batched_inputs`` are averaged over.

        Args:
            batched_inputs: as for ``forward`` in training.

        Returns:
            ``masks`` and ``class_weights``, see :meth:`SetCriterion.normalisers`.

        Raises:
            UserError: a sample without annotations or with a class out of range.
        """
        num_targets = [self.num_objects(inputs) for inputs in batched_inputs]
        return self.criterion.normalisers(num_targets, self.sem_seg_head.num_queries)

    @abstractmethod
    def num_objects(self, inputs: dict[str, Any]) -> int:
        """The number of objects that a training sample is annotated with.

        Raises:
            UserError: it has no annotations, or a class is out of range.
        """

    def weighted_losses(
        self,
        outputs: dict[str, Any],
        targets: Sequence[dict[str, Tensor]],
        batched_inputs: list[dict[str, Any]],
        normalisers: Mapping[str, Tensor] | None,
    ) -> dict[str, Tensor]:
        """Compute the losses of the head's outputs, multiplied by their weights.

        Args:
            outputs: of ``sem_seg_head`` in training.
            targets: see :meth:`SetCriterion.forward`.
            batched_inputs: what ``targets`` are made of.
            normalisers: scalars by name; None takes the :meth:`normalisers` of the batches of all
                processes, averaged.
        """
        if normalisers is None:
            normalisers = average_over_processes(self.normalisers(batched_inputs), self.device)
        losses = self.criterion(outputs, targets, normalisers)
        weights = self.criterion.weight_dict
        return {name: loss * weights[name] for name, loss in losses.items()}

    def check_classes(self, classes: Tensor, inputs: dict[str, Any]) -> None:
        """See :func:`ddep.modeling.meta_arch.training_samples.check_classes`."""
        number = self.sem_seg_head.num_classes
        check_classes(classes, inputs, number, "MODEL.SEM_SEG_HEAD.NUM_CLASSES")
