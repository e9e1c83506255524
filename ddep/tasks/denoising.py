"""Denoising pretraining: unlabelled images in, the noise in them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.evaluation import DatasetEvaluator
from torch import nn

from ddep.checkpoint.groups import TRANSFERABLE
from ddep.data.labels import limits_labels
from ddep.drawing.denoising import draw_denoising
from ddep.errors import UserError
from ddep.evaluation.denoising import DenoisingEvaluator
from ddep.evaluation.measures import MEASURES, Measure
from ddep.modeling.denoising_loss import DenoisingLoss
from ddep.modeling.exportable import Exportable, ExportableDenoiser
from ddep.noise import check_formulation, draw_sigma
from ddep.tasks.adapters import has_adapters
from ddep.tasks.registry import register_task
from ddep.tasks.task import Task


@register_task
class DenoisingTask(Task):
    """Decoder denoising pretraining (arXiv 2205.11423). It needs no labels and predicts none."""

    name: ClassVar = "denoising"
    meta_architectures: ClassVar = ("DenoisingPretrainer",)
    mappers: ClassVar = ("ddep_denoising",)
    freeze_key: ClassVar = "MODEL.DDEP.FREEZE_BACKBONE"  # DDeP freezes the encoder, DeP trains it
    exports: ClassVar = ("torch", "onnx")

    def check(self, cfg: CfgNode) -> list[str]:
        """As :meth:`Task.check`."""
        if has_adapters(cfg):
            raise UserError(
                "MODEL.REIN or MODEL.LORA is enabled, but denoising keeps the encoder as it is; "
                "set MODEL.REIN.ENABLED to False and MODEL.LORA.RANK to 0"
            )
        notes = super().check(cfg)
        if cfg.MODEL.BACKBONE.FREEZE and not cfg.MODEL.DDEP.FREEZE_BACKBONE:
            raise UserError(
                "MODEL.BACKBONE.FREEZE is True, but MODEL.DDEP.FREEZE_BACKBONE, which counts in "
                "denoising, is False; set both to the same"
            )
        check_formulation(cfg.MODEL.DDEP.NOISE)
        DenoisingLoss(cfg)  # checks its keys
        draw_sigma(cfg.MODEL.DDEP.SIGMA, torch.Generator())  # the global one stays as it is
        if limits_labels(cfg):
            notes.append(
                "DATASETS.LABEL_FRACTION, LABEL_COUNT or LABEL_LIST is given, but denoising uses "
                "no labels: ignored, all images are used"
            )
        return notes

    def transferred(self, cfg: CfgNode) -> Sequence[str]:
        """Everything: MODEL.DDEP.TRANSFER is about what comes after pretraining."""
        return TRANSFERABLE

    def normalisers(self, model: nn.Module) -> Callable[[list[dict[str, Any]]], dict[str, float]]:
        """As :meth:`Task.normalisers`."""
        return model.normalisers

    def networks(self, model: nn.Module) -> list[nn.Module]:
        """As :meth:`Task.networks`."""
        return [model.backbone, model.sem_seg_head, model.denoising_head]

    def exportable(self, cfg: CfgNode, model: nn.Module, *, post_processing: bool) -> Exportable:
        """As :meth:`Task.exportable`."""
        return ExportableDenoiser(
            model,
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
            image_format=cfg.INPUT.FORMAT,
            post_processing=post_processing,
        )

    def measured(self, cfg: CfgNode) -> dict[str, str]:
        """As :meth:`Task.measured`."""
        return {"denoising": "MODEL.META_ARCHITECTURE"}

    def measures_on(self, cfg: CfgNode, dataset_name: str) -> list[Measure]:
        """The noise, on any data set."""
        return [MEASURES["denoising"]]

    def build_evaluator(self, cfg: CfgNode, dataset_name: str, folder: str) -> DatasetEvaluator:
        """As :meth:`Task.build_evaluator`; it draws by itself."""
        return DenoisingEvaluator(
            dataset_name,
            formulation=cfg.MODEL.DDEP.NOISE,
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
            image_format=cfg.INPUT.FORMAT,
            output_dir=folder,
        )

    def class_metadata(self, cfg: CfgNode) -> None:
        """None: there are no classes."""

    def draw(
        self,
        cfg: CfgNode,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        metadata: Metadata | None,
    ) -> np.ndarray:
        """Noisy, denoised and clean image side by side, (H, 3 W, 3) uint8, RGB."""
        return draw_denoising(
            inputs,
            outputs,
            formulation=cfg.MODEL.DDEP.NOISE,
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
            image_format=cfg.INPUT.FORMAT,
        )
