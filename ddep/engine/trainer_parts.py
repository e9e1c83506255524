"""The parts of the trainer: model, optimizer, schedule, data loaders and evaluators."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from torch import nn

from ddep.adaptation import adapts, method_of
from ddep.data import build_paired_loader, build_test_loader, build_train_loader
from ddep.engine.optimizer import build_optimizer
from ddep.engine.schedule import build_schedule
from ddep.evaluation import output_folder, write_results
from ddep.inference.inference_model import inference_model
from ddep.modeling.encoder import freeze_encoder
from ddep.tasks import task_of

logger = logging.getLogger(__name__)


class TrainerParts(DefaultTrainer):
    """The class methods that build the trainer's parts, and evaluation."""

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The model of MODEL.META_ARCHITECTURE, on MODEL.DEVICE, frozen as the config says."""
        model = build_model(cfg)
        if task_of(cfg).freezes_encoder(cfg):
            freeze_encoder(model)
        logger.debug(f"Model:\n{model}")
        total = sum(p.numel() for p in model.parameters())
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        logger.info(
            f"{type(model).__name__}: {total / 1e6:.2f} M parameters, "
            f"{trained / 1e6:.2f} M trained, on {cfg.MODEL.DEVICE}"
        )
        return model

    @classmethod
    def build_optimizer(
        cls, cfg: CfgNode, model: nn.Module, transferred: Collection[str] = ()
    ) -> torch.optim.Optimizer:
        """See :func:`ddep.engine.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model, transferred)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """See :func:`ddep.engine.schedule.build_schedule`."""
        return build_schedule(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """See :func:`ddep.data.build_train_loader`; with MODEL.ADAPTATION also the target images,
        see :func:`ddep.data.build_paired_loader`."""
        if not adapts(cfg):
            return build_train_loader(cfg)
        method = method_of(cfg)
        return build_paired_loader(
            cfg, method.target_mapper, method.in_pairs, method.target_weights
        )

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """See :func:`ddep.data.build_test_loader`."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """See :meth:`ddep.tasks.Task.build_evaluator`."""
        return task_of(cfg).build_evaluator(cfg, dataset_name, output_folder(cfg, dataset_name))

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | list[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate ``model`` on every data set in DATASETS.TEST, and write the results to files.

        TEST.AUG and TEST.SLIDE apply, see :func:`ddep.inference.inference_model.inference_model`.

        Args:
            cfg: the whole config.
            model: with the weights to evaluate.
            evaluators: one for each data set; by default what :meth:`build_evaluator` makes.

        Returns:
            task -> metric -> number; with several data sets, such a dict by data set name. Empty if
            there is no data set, and in all but the main process. See
            :func:`ddep.evaluation.write_results` for the files.
        """
        results = super().test(cfg, inference_model(cfg, model), evaluators)
        if comm.is_main_process() and results:
            write_results(cfg, results)
        return results
