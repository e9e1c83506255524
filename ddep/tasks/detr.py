"""Detection by DETR."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, ClassVar

from detectron2.config import CfgNode
from torch import nn

from ddep.errors import UserError
from ddep.modeling.detr_checks import check_detr_config, check_mask_head_config
from ddep.modeling.meta_arch.detr import MASK_HEAD
from ddep.tasks.detection import DetectionTask
from ddep.tasks.registry import register_task
from ddep.tasks.task import Task

# The mapper of panoptic data sets.
_PANOPTIC = "detr_panoptic_boxes"


@register_task
class DetrTask(DetectionTask):
    """DETR (arXiv 2005.12872)."""

    meta_architectures: ClassVar = ("Detr",)
    mappers: ClassVar = ("detr_detection", _PANOPTIC)
    num_classes_key: ClassVar = "MODEL.DETR.NUM_CLASSES"

    def check_parts(self, cfg: CfgNode) -> None:
        """As :meth:`DetectionTask.check_parts`."""
        check_detr_config(cfg.MODEL.DETR)
        check_mask_head_config(cfg)
        name, panoptic = cfg.INPUT.DATASET_MAPPER_NAME, cfg.MODEL.DETR.PANOPTIC_ON
        if name in self.mappers and panoptic != (name == _PANOPTIC):
            raise UserError(
                f"MODEL.DETR.PANOPTIC_ON is {panoptic}, but INPUT.DATASET_MAPPER_NAME is {name!r}; "
                f"expected {_PANOPTIC!r} if, and only if, classes are things and stuff"
            )

    def check_averaging(self, cfg: CfgNode, key: str) -> None:
        """As :meth:`Task.check_averaging`."""
        Task.check_averaging(self, cfg, key)

    def normalisers(self, model: nn.Module) -> Callable[[list[dict[str, Any]]], dict[str, float]]:
        """As :meth:`Task.normalisers`."""
        return model.normalisers

    def networks(self, model: nn.Module) -> list[nn.Module]:
        """As :meth:`Task.networks`."""
        return [model.backbone, model.transformer]

    def _check_classes(self, cfg: CfgNode, dataset_name: str) -> None:
        """As :meth:`DetectionTask._check_classes`; with stuff, the model checks it when built."""
        if not cfg.MODEL.DETR.PANOPTIC_ON:
            super()._check_classes(cfg, dataset_name)

    def adapt(self, cfg: CfgNode) -> list[str]:
        """As :meth:`DetectionTask.adapt`; the detector may come from MODEL.DETR.FROZEN_WEIGHTS."""
        return [] if cfg.MODEL.DETR.FROZEN_WEIGHTS else super().adapt(cfg)

    def initial_weights(self, cfg: CfgNode) -> list[str]:
        """As :meth:`Task.initial_weights`: MODEL.DETR.FROZEN_WEIGHTS have the last word."""
        frozen = cfg.MODEL.DETR.FROZEN_WEIGHTS
        return [*super().initial_weights(cfg), *([frozen] if frozen else [])]

    def check_initial_weights(
        self, cfg: CfgNode, model: nn.Module, loaded: Collection[str]
    ) -> None:
        """As :meth:`Task.check_initial_weights`: a frozen detector must be whole."""
        frozen = cfg.MODEL.DETR.FROZEN_WEIGHTS
        detector = [n for n, _ in model.named_parameters() if not n.startswith(MASK_HEAD)]
        absent = [name for name in detector if name not in loaded]
        if frozen and absent:
            raise UserError(
                f"MODEL.DETR.FROZEN_WEIGHTS {frozen} lacks {len(absent)} of the detector's "
                f"{len(detector)} weights, such as {absent[0]}, which would stay random; name a "
                "checkpoint of the same detector, or empty the key to train it"
            )

    def measurable(self, cfg: CfgNode) -> dict[str, str]:
        """As :meth:`Task.measurable`."""
        panoptic = {"panoptic_seg": "MODEL.MASK_ON"} if cfg.MODEL.DETR.PANOPTIC_ON else {}
        return {**panoptic, **super().measurable(cfg)}
