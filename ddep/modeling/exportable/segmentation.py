"""Mask classification as a function of tensors."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ddep.modeling.exportable.batched_postprocessing import (
    batched_instances,
    batched_panoptic,
    batched_semantic,
)
from ddep.modeling.exportable.exportable import Exportable
from ddep.modeling.meta_arch.mask_former import MaskFormer

_LOGITS = {
    "pred_logits": "(B, Q, K + 1) float32, logits of each query's class, the last of none",
    "pred_masks": "(B, Q, h, w) float32, logits of each query's mask on the padded image, at the "
    "stride of the mask features",
}
_SEMANTIC = {"semantic": "(B, H, W) int64, the class of each pixel"}
_PANOPTIC = {
    "panoptic": "(B, H, W) int32, the segment of each pixel, from 1; 0 is none",
    "segment_ids": "(B, Q) int32, the segment that each query begins; 0 is none",
    "segment_classes": "(B, Q) int64, its class",
    "segment_scores": "(B, Q) float32, its probability",
}
_INSTANCES = {
    "masks": "(B, N, H, W) bool, the masks of instances",
    "boxes": "(B, N, 4) float32, left, top, right, bottom in pixels",
    "scores": "(B, N) float32; 0 is no instance",
    "classes": "(B, N) int64",
}


class ExportableMaskFormer(Exportable):
    """MaskFormer and Mask2Former: logits, or the segmentations that the config switches on."""

    def __init__(self, model: MaskFormer, *, image_format: str, post_processing: bool) -> None:
        """
        Args:
            model: in evaluation mode.
            image_format: see :class:`Exportable`.
            post_processing: results are segmentations instead of logits.
        """
        super().__init__(
            pixel_mean=model.pixel_mean.flatten().tolist(),
            pixel_std=model.pixel_std.flatten().tolist(),
            image_format=image_format,
            size_divisibility=model.size_divisibility,
        )
        self.backbone = model.backbone
        self.sem_seg_head = model.sem_seg_head
        self.semantic_on = model.semantic_on
        self.panoptic_on = model.panoptic_on
        self.instance_on = model.instance_on
        self.thing_ids = model.thing_ids
        self.object_mask_threshold = model.object_mask_threshold
        self.overlap_threshold = model.overlap_threshold
        self.mask_threshold = model.mask_threshold
        self.max_detections = model.max_detections
        self.post_processing = post_processing
        self.describes = _LOGITS
        if post_processing:
            self.describes = {
                **(_SEMANTIC if self.semantic_on else {}),
                **(_PANOPTIC if self.panoptic_on else {}),
                **(_INSTANCES if self.instance_on else {}),
            }

    def facts(self) -> dict[str, Any]:
        """As :meth:`Exportable.facts`."""
        return {"thing_ids": sorted(self.thing_ids)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """As :meth:`Exportable.forward`."""
        padded = self.pad(self.normalise(images))
        outputs = self.sem_seg_head(self.backbone(padded))
        mask_cls, mask_pred = outputs["pred_logits"], outputs["pred_masks"]
        if not self.post_processing:
            return {"pred_logits": mask_cls, "pred_masks": mask_pred}
        height, width = images.shape[-2:]
        mask_pred = F.interpolate(
            mask_pred, size=padded.shape[-2:], mode="bilinear", align_corners=False
        )
        mask_pred = mask_pred[..., :height, :width]
        results: dict[str, Tensor] = {}
        if self.semantic_on:
            results["semantic"] = batched_semantic(mask_cls, mask_pred)
        if self.panoptic_on:
            results |= batched_panoptic(
                mask_cls,
                mask_pred,
                thing_ids=self.thing_ids,
                object_mask_threshold=self.object_mask_threshold,
                overlap_threshold=self.overlap_threshold,
                mask_threshold=self.mask_threshold,
            )
        if self.instance_on:
            results |= batched_instances(
                mask_cls,
                mask_pred,
                max_detections=self.max_detections,
                class_ids=self.thing_ids if self.panoptic_on else None,
            )
        return results
