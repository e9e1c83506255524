"""The meta-architecture of MaskFormer and Mask2Former: images in, losses or segmentations out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList, Instances
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor
from torch.nn import functional as F

from ddep.errors import UserError
from ddep.modeling.mask_rows import Resize
from ddep.modeling.meta_arch.data_set_classes import find_thing_ids
from ddep.modeling.meta_arch.mask_classifier import MaskClassifier
from ddep.modeling.meta_arch.training_samples import annotations, padded_masks
from ddep.modeling.postprocessing import (
    instance_inference,
    panoptic_inference,
    semantic_inference,
)
from ddep.modeling.transformer_decoder import is_mask_former


class MaskLogits(NamedTuple):
    """What the network says about one image, before post-processing.

    Attributes:
        mask_cls: (Q, K+1) float32 class logits; the last class is no-object.
        mask_pred: (Q, h, w) float32 mask logits of the padded image, at the network's resolution.
        padded_size: height and width of the padded images that the network saw.
        image_size: height and width of the image, at the top left of the padded one.
        output_size: height and width of the results.
    """

    mask_cls: Tensor
    mask_pred: Tensor
    padded_size: tuple[int, int]
    image_size: tuple[int, int]
    output_size: tuple[int, int]


@META_ARCH_REGISTRY.register()
class MaskFormer(MaskClassifier):
    """Semantic, panoptic and instance segmentation by mask classification.

    MaskFormer (arXiv 2107.06278) or Mask2Former (arXiv 2112.01527), depending on its parts.
    """

    @configurable
    def __init__(
        self,
        *,
        thing_ids: Collection[int],
        semantic_on: bool,
        panoptic_on: bool,
        instance_on: bool,
        resize_before_semantic: bool,
        object_mask_threshold: float,
        overlap_threshold: float,
        mask_threshold: float,
        max_detections: int,
        **parts: Any,
    ) -> None:
        """
        Args:
            thing_ids: classes that are things.
            semantic_on, panoptic_on, instance_on: what inference returns.
            resize_before_semantic: combine classes and masks at the output size, not the input's.
            object_mask_threshold, overlap_threshold, mask_threshold: see
                :func:`panoptic_inference`.
            max_detections: largest number of instances per image.
            parts: see :class:`MaskClassifier`.
        """
        super().__init__(**parts)
        self.thing_ids = frozenset(thing_ids)
        self.semantic_on = semantic_on
        self.panoptic_on = panoptic_on
        self.instance_on = instance_on
        # Panoptic and instance segmentation always take masks of the output size.
        self.resize_masks = resize_before_semantic or panoptic_on or instance_on
        self.object_mask_threshold = object_mask_threshold
        self.overlap_threshold = overlap_threshold
        self.mask_threshold = mask_threshold
        self.max_detections = max_detections

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of ``__init__`` from a config.

        Raises:
            UserError: the config does not fit the data set, or asks for no results.
        """
        test = cfg.MODEL.MASK_FORMER.TEST
        if not (test.SEMANTIC_ON or test.PANOPTIC_ON or test.INSTANCE_ON):
            raise UserError(
                "MODEL.MASK_FORMER.TEST: SEMANTIC_ON, PANOPTIC_ON and INSTANCE_ON are all False; "
                "switch on at least one"
            )
        return {
            **cls.parts(cfg),
            "thing_ids": find_thing_ids(cfg),
            "semantic_on": test.SEMANTIC_ON,
            "panoptic_on": test.PANOPTIC_ON,
            "instance_on": test.INSTANCE_ON,
            "resize_before_semantic": test.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE,
            "object_mask_threshold": test.OBJECT_MASK_THRESHOLD,
            "overlap_threshold": test.OVERLAP_THRESHOLD,
            # The first MaskFormer gives every pixel of a segment's query to the segment.
            "mask_threshold": 0.0 if is_mask_former(cfg) else 0.5,
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    def forward(
        self,
        batched_inputs: list[dict[str, Any]],
        normalisers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Compute losses in training, segmentations in evaluation.

        Args:
            batched_inputs: one dict per image: ``image`` (3, H, W), 0..255; in training
                ``instances`` with ``gt_classes`` (T,) int64 and ``gt_masks`` (T, H, W) bool; in
                evaluation ``height`` and ``width``, the size of the results (default: the image's).
            normalisers: scalars by name that divide the sums of losses in training; None takes the
                :meth:`normalisers` of the batches of all processes, averaged. Gradients of parts of
                a batch add up to those of the whole if the parts are padded to one size, because
                padding influences the features and counts in dense mask losses.

        Returns:
            In training a dict of weighted losses. In evaluation one dict per image with what is
            switched on: ``sem_seg`` (K, height, width) class scores; ``panoptic_seg``, see
            :func:`panoptic_inference`; ``instances``, see :func:`instance_inference`.

        Raises:
            UserError: a training image without annotations or with a class out of range.
        """
        if not self.training:
            return [self.results(logits) for logits in self.predict_logits(batched_inputs)]
        images = self._prepare_images(batched_inputs)
        outputs = self.sem_seg_head(self.backbone(images.tensor))
        return self.losses(outputs, batched_inputs, images, normalisers)

    def losses(
        self,
        outputs: dict[str, Any],
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        normalisers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Compute the weighted losses of the head's outputs.

        Args:
            outputs: of ``sem_seg_head`` in training.
            batched_inputs: as for :meth:`forward` in training.
            images: theirs, padded.
            normalisers: as for :meth:`forward`.

        Raises:
            UserError: an image without annotations or with a class out of range.
        """
        targets = self._prepare_targets(batched_inputs, images)
        return self.weighted_losses(outputs, targets, batched_inputs, normalisers)

    def num_objects(self, inputs: dict[str, Any]) -> int:
        """As :meth:`MaskClassifier.num_objects`."""
        return len(self._annotations(inputs))

    def predict_logits(self, batched_inputs: list[dict[str, Any]]) -> list[MaskLogits]:
        """Run the network, in evaluation.

        Args:
            batched_inputs: as for :meth:`forward` in evaluation.

        Returns:
            One for each image, for :meth:`results`.
        """
        images = self._prepare_images(batched_inputs)
        outputs = self.sem_seg_head(self.backbone(images.tensor))
        return [
            MaskLogits(
                mask_cls.float(),
                mask_pred.float(),
                padded_size=tuple(images.tensor.shape[-2:]),
                image_size=image_size,
                output_size=(
                    inputs.get("height", image_size[0]),
                    inputs.get("width", image_size[1]),
                ),
            )
            for mask_cls, mask_pred, image_size, inputs in zip(
                outputs["pred_logits"],
                outputs["pred_masks"],
                images.image_sizes,
                batched_inputs,
                strict=True,
            )
        ]

    def results(
        self,
        logits: MaskLogits,
        *,
        object_mask_threshold: float | None = None,
        overlap_threshold: float | None = None,
    ) -> dict[str, Any]:
        """Compute the segmentations of one image.

        Args:
            logits: from :meth:`predict_logits`; unchanged.
            object_mask_threshold, overlap_threshold: see :func:`panoptic_inference`; None takes
                the model's own.

        Returns:
            What :meth:`forward` returns for one image in evaluation.
        """
        if object_mask_threshold is None:
            object_mask_threshold = self.object_mask_threshold
        if overlap_threshold is None:
            overlap_threshold = self.overlap_threshold
        with torch.autocast(self.device.type, enabled=False):
            return self._results(logits, object_mask_threshold, overlap_threshold)

    def _prepare_images(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        return self.prepare_images([inputs["image"] for inputs in batched_inputs])

    def _prepare_targets(
        self, batched_inputs: list[dict[str, Any]], images: ImageList
    ) -> list[dict[str, Tensor]]:
        """Labels and masks of each image on the model's device, masks padded like the images."""
        targets = []
        for inputs, image_size in zip(batched_inputs, images.image_sizes, strict=True):
            instances = self._annotations(inputs)
            targets.append(
                {
                    "labels": instances.gt_classes.to(self.device),
                    "masks": padded_masks(instances.gt_masks, inputs, image_size, images),
                }
            )
        return targets

    def _annotations(self, inputs: dict[str, Any]) -> Instances:
        """The image's instances, checked."""
        instances = annotations(inputs)
        self.check_classes(instances.gt_classes, inputs)
        return instances

    def _results(
        self, logits: MaskLogits, object_mask_threshold: float, overlap_threshold: float
    ) -> dict[str, Any]:
        mask_cls, mask_pred, padded_size, image_size, output_size = logits
        to_image = Resize(padded_size, kept=image_size)
        to_output = Resize(output_size, kept=output_size)
        results: dict[str, Any] = {}
        if self.semantic_on:
            resizes = (to_image, to_output) if self.resize_masks else (to_image,)
            sem_seg = retry_if_cuda_oom(semantic_inference)(mask_cls, mask_pred, resizes)
            if not self.resize_masks:
                sem_seg = retry_if_cuda_oom(_resize)(sem_seg, output_size)
            results["sem_seg"] = sem_seg
        if self.panoptic_on:
            results["panoptic_seg"] = retry_if_cuda_oom(panoptic_inference)(
                mask_cls,
                mask_pred,
                (to_image, to_output),
                thing_ids=self.thing_ids,
                object_mask_threshold=object_mask_threshold,
                overlap_threshold=overlap_threshold,
                mask_threshold=self.mask_threshold,
            )
        if self.instance_on:
            results["instances"] = retry_if_cuda_oom(instance_inference)(
                mask_cls,
                mask_pred,
                (to_image, to_output),
                max_detections=self.max_detections,
                class_ids=self.thing_ids if self.panoptic_on else None,
            )
        return results


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (N, H, W) bilinearly."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps  # interpolation would copy them
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
