"""Detection by DETR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from detectron2.config import CfgNode
from torch import nn

from ddep.errors import UserError
from ddep.modeling.meta_arch.detr import check_detr_config
from ddep.tasks.detection import DetectionTask
from ddep.tasks.registry import register_task
from ddep.tasks.task import Task


@register_task
class DetrTask(DetectionTask):
    """DETR (arXiv 2005.12872)."""

    meta_architectures: ClassVar = ("Detr",)
    mappers: ClassVar = ("detr_detection",)
    num_classes_key: ClassVar = "MODEL.DETR.NUM_CLASSES"

    def check_parts(self, cfg: CfgNode) -> None:
        """As :meth:`DetectionTask.check_parts`."""
        check_detr_config(cfg.MODEL.DETR)
        if cfg.MODEL.MASK_ON:
            raise UserError("MODEL.MASK_ON is True, but Detr predicts boxes; set it to False")

    def check_averaging(self, cfg: CfgNode, key: str) -> None:
        """As :meth:`Task.check_averaging`."""
        Task.check_averaging(self, cfg, key)

    def normalisers(self, model: nn.Module) -> Callable[[list[dict[str, Any]]], dict[str, float]]:
        """As :meth:`Task.normalisers`."""
        return model.normalisers

    def networks(self, model: nn.Module) -> list[nn.Module]:
        """As :meth:`Task.networks`."""
        return [model.backbone, model.transformer]
