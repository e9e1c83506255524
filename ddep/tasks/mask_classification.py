"""What tasks of models that classify masks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from detectron2.config import CfgNode
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from ddep.errors import UserError
from ddep.modeling.build_criterion import mask_loss_name
from ddep.modeling.per_pixel_head import per_pixel_heads
from ddep.modeling.transformer_decoder import (
    TRANSFORMER_DECODER_REGISTRY,
    MultiScaleMaskedTransformerDecoder,
)
from ddep.modeling.transformer_decoder.build_transformer_decoder import transformer_decoder_name
from ddep.tasks.task import Task, check_registered


class MaskClassificationTask(Task):
    """Models with MODEL.SEM_SEG_HEAD and MODEL.MASK_FORMER, which predict classes and masks."""

    num_classes_key: ClassVar = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"

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
        name, mask_former = transformer_decoder_name(cfg), cfg.MODEL.MASK_FORMER
        decoder = TRANSFORMER_DECODER_REGISTRY.get(name)
        if not issubclass(decoder, MultiScaleMaskedTransformerDecoder):
            raise UserError(
                f"MODEL.REIN.LINK_QUERIES is True, but the transformer decoder is {name}; "
                "set it to False, or choose MultiScaleMaskedTransformerDecoder"
            )
        if cfg.MODEL.REIN.TOKENS != mask_former.NUM_OBJECT_QUERIES:
            raise UserError(
                f"MODEL.REIN.TOKENS is {cfg.MODEL.REIN.TOKENS}, but MODEL.MASK_FORMER."
                f"NUM_OBJECT_QUERIES is {mask_former.NUM_OBJECT_QUERIES}; expected the same, "
                "because of MODEL.REIN.LINK_QUERIES"
            )

    def normalisers(self, model: nn.Module) -> Callable[[list[dict[str, Any]]], dict[str, float]]:
        """As :meth:`Task.normalisers`."""
        return model.normalisers

    def networks(self, model: nn.Module) -> list[nn.Module]:
        """As :meth:`Task.networks`."""
        head = model.sem_seg_head
        return [model.backbone, head.pixel_decoder, head.predictor]
