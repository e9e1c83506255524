"""Segmentation by mask classification: panoptic, semantic and instance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from detectron2.config import CfgNode
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from ddep.config import get_key
from ddep.errors import UserError
from ddep.modeling.build_criterion import mask_loss_name
from ddep.modeling.exportable import Exportable, ExportableMaskFormer
from ddep.modeling.per_pixel_head import per_pixel_heads
from ddep.modeling.pixel_classifier import PixelClassifier, QueryClassifier
from ddep.modeling.transformer_decoder.build_transformer_decoder import transformer_decoder_name
from ddep.tasks.registry import register_task
from ddep.tasks.task import Task, check_registered

# The config key that switches each kind of result on.
_SWITCHES = {
    "panoptic_seg": "MODEL.MASK_FORMER.TEST.PANOPTIC_ON",
    "sem_seg": "MODEL.MASK_FORMER.TEST.SEMANTIC_ON",
    "segm": "MODEL.MASK_FORMER.TEST.INSTANCE_ON",
}


@register_task
class SegmentationTask(Task):
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
    num_classes_key: ClassVar = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
    exports: ClassVar = ("hf", "torch", "onnx")
    class_scores: ClassVar = "probabilities"

    def check(self, cfg: CfgNode) -> list[str]:
        """As :meth:`Task.check`."""
        check_registered(cfg, "MODEL.SEM_SEG_HEAD.NAME", SEM_SEG_HEADS_REGISTRY)
        notes = super().check(cfg)
        head = cfg.MODEL.SEM_SEG_HEAD.NAME
        if head in per_pixel_heads():
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.NAME is {head!r}, which classifies pixels; "
                f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} needs one that predicts "
                "masks, such as MaskFormerHead; or choose SemanticSegmentor"
            )
        mask_loss_name(cfg)
        return notes

    def check_linked_queries(self, cfg: CfgNode) -> None:
        """As :meth:`Task.check_linked_queries`."""
        decoder, mask_former = transformer_decoder_name(cfg), cfg.MODEL.MASK_FORMER
        if decoder != "MultiScaleMaskedTransformerDecoder":
            raise UserError(
                f"MODEL.REIN.LINK_QUERIES is True, but the transformer decoder is {decoder}; "
                "set it to False, or choose MultiScaleMaskedTransformerDecoder"
            )
        if cfg.MODEL.REIN.TOKENS != mask_former.NUM_OBJECT_QUERIES:
            raise UserError(
                f"MODEL.REIN.TOKENS is {cfg.MODEL.REIN.TOKENS}, but MODEL.MASK_FORMER."
                f"NUM_OBJECT_QUERIES is {mask_former.NUM_OBJECT_QUERIES}; expected the same, "
                "because of MODEL.REIN.LINK_QUERIES"
            )

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

    def normalisers(self, model: nn.Module) -> Callable[[list[dict[str, Any]]], dict[str, float]]:
        """As :meth:`Task.normalisers`."""
        return model.normalisers

    def networks(self, model: nn.Module) -> list[nn.Module]:
        """As :meth:`Task.networks`."""
        head = model.sem_seg_head
        return [model.backbone, head.pixel_decoder, head.predictor]

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
