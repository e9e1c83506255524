"""Segmentation by mask classification: panoptic, semantic and instance."""

from __future__ import annotations

from typing import ClassVar

from detectron2.config import CfgNode
from torch import nn

from ddep.config import get_key
from ddep.errors import UserError
from ddep.modeling.exportable import Exportable, ExportableMaskFormer
from ddep.modeling.pixel_classifier import PixelClassifier, QueryClassifier
from ddep.modeling.transformer_decoder import VideoMultiScaleMaskedTransformerDecoder
from ddep.modeling.transformer_decoder.build_transformer_decoder import transformer_decoder_name
from ddep.tasks.mask_classification import MaskClassificationTask
from ddep.tasks.registry import register_task

# The config key that switches each kind of result on.
_SWITCHES = {
    "panoptic_seg": "MODEL.MASK_FORMER.TEST.PANOPTIC_ON",
    "sem_seg": "MODEL.MASK_FORMER.TEST.SEMANTIC_ON",
    "segm": "MODEL.MASK_FORMER.TEST.INSTANCE_ON",
}


@register_task
class SegmentationTask(MaskClassificationTask):
    """MaskFormer (arXiv 2107.06278) and Mask2Former (arXiv 2112.01527)."""

    name: ClassVar = "segmentation"
    meta_architectures: ClassVar = ("MaskFormer",)
    mappers: ClassVar = (
        "mask_former_semantic",
        "mask_former_panoptic",
        "mask_former_instance",
        "coco_panoptic_lsj",
        "coco_instance_lsj",
        "detr_panoptic",
    )
    exports: ClassVar = ("hf", "torch", "onnx")
    class_scores: ClassVar = "probabilities"

    def check(self, cfg: CfgNode) -> list[str]:
        """As :meth:`Task.check`."""
        decoder = transformer_decoder_name(cfg)
        if decoder == VideoMultiScaleMaskedTransformerDecoder.__name__:
            raise UserError(
                f"MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME is {decoder}, which is for clips of "
                f"videos; MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} needs one for "
                "images, or choose VideoMaskFormer"
            )
        return super().check(cfg)

    def check_averaging(self, cfg: CfgNode, key: str) -> None:
        """As :meth:`Task.check_averaging`: semantic results only."""
        super().check_averaging(cfg, key)
        for name, switch in _SWITCHES.items():
            if name != "sem_seg" and get_key(cfg, switch):
                raise UserError(
                    f"{key} is True, but so is {switch}: segments that are found in several "
                    "scales or windows cannot be averaged, because nothing tells which of them "
                    "belong together; set one of the two to False"
                )

    def check_adaptation(self, cfg: CfgNode) -> None:
        """As :meth:`Task.check_adaptation`: it can."""

    def pixel_classifier(self, cfg: CfgNode, model: nn.Module) -> PixelClassifier:
        """As :meth:`Task.pixel_classifier`."""
        return QueryClassifier(
            model,
            num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            ignore_label=cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
        )

    def exportable(self, cfg: CfgNode, model: nn.Module, *, post_processing: bool) -> Exportable:
        """As :meth:`Task.exportable`."""
        return ExportableMaskFormer(
            model, image_format=cfg.INPUT.FORMAT, post_processing=post_processing
        )

    def measured(self, cfg: CfgNode) -> dict[str, str]:
        """As :meth:`Task.measured`."""
        return {name: key for name, key in _SWITCHES.items() if get_key(cfg, key)}

    def measurable(self, cfg: CfgNode) -> dict[str, str]:
        """As :meth:`Task.measurable`."""
        return _SWITCHES
