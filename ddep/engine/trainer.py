"""The training loop: detectron2's, with this project's parts."""

from __future__ import annotations

import json
import logging
import os
import weakref
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.projects.deeplab import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter
from torch import nn

from ddep.checkpoint import Checkpointer
from ddep.checkpoint.groups import TRANSFERABLE, group_of
from ddep.checkpoint.writing import atomic_write
from ddep.data import build_test_loader, build_train_loader
from ddep.engine.checks import frozen_backbone_error, is_frozen
from ddep.engine.optimizer import build_optimizer
from ddep.engine.progress import ProgressPrinter
from ddep.errors import UserError
from ddep.evaluation import ResultsTable, build_evaluator

logger = logging.getLogger(__name__)

_SCHEDULES = ("WarmupPolyLR", "WarmupCosineLR", "WarmupMultiStepLR")


class Trainer(DefaultTrainer):
    """Trains and evaluates what a config describes, denoiser or segmentation model.

    Args:
        cfg: frozen, from :func:`ddep.engine.setup`.

    Raises:
        UserError: a data set, a checkpoint or a value in ``cfg`` that does not fit.
    """

    def build_hooks(self) -> list[HookBase | None]:
        """detectron2's hooks, around this project's checkpointer."""
        # DefaultTrainer.__init__ ends here; the hooks must not get hold of its own checkpointer.
        self.checkpointer = Checkpointer(
            self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        return [
            HeadLRScheduler() if isinstance(hook, hooks.LRScheduler) else hook
            for hook in super().build_hooks()
        ]

    def build_writers(self) -> list[EventWriter]:
        """A readable line for the console; metrics.json and TensorBoard as in detectron2."""
        return [
            ProgressPrinter(self.max_iter, self.cfg.SOLVER.IMS_PER_BATCH)
            if isinstance(writer, CommonMetricPrinter)
            else writer
            for writer in super().build_writers()
        ]

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint in OUTPUT_DIR, or start from MODEL.WEIGHTS.

        A segmentation model that starts takes over what MODEL.DDEP.TRANSFER lists.

        Args:
            resume: whether to go on, if there is a checkpoint.

        Raises:
            UserError: the checkpoint does not fit, or has no weights for a frozen backbone.
        """
        if resume and self.checkpointer.has_checkpoint():
            path = self.checkpointer.get_checkpoint_file()
            self.checkpointer.load(path)
            self.start_iter = self.iter + 1
            if self.start_iter < self.max_iter:
                logger.info(f"Resuming behind iteration {self.start_iter} of {self.max_iter}")
            else:
                logger.warning(
                    f"SOLVER.MAX_ITER is {self.max_iter} and {path} has {self.start_iter} "
                    "iterations behind it: nothing is trained; raise SOLVER.MAX_ITER to go on"
                )
            return
        if not self.cfg.MODEL.WEIGHTS:
            logger.info("MODEL.WEIGHTS is empty: starting from random numbers")
            return
        segments = self.cfg.MODEL.META_ARCHITECTURE == "MaskFormer"
        self.checkpointer.load(
            self.cfg.MODEL.WEIGHTS,
            checkpointables=[],
            transfer=self.cfg.MODEL.DDEP.TRANSFER if segments else TRANSFERABLE,
        )
        if is_frozen(self.cfg):
            self._check_backbone_is_loaded()

    def _check_backbone_is_loaded(self) -> None:
        report, path = self.checkpointer.report, self.cfg.MODEL.WEIGHTS
        for name, (found, expected) in report.mismatched.items():
            if group_of(name) == "backbone":
                raise frozen_backbone_error(
                    f"{name} is {found} in {path} and {expected} in the model"
                )
        # What is left of one dimension is norms and biases, which start out neutral.
        parameters = self.checkpointer.model.backbone.named_parameters(prefix="backbone")
        tables = [name for name, parameter in parameters if parameter.ndim > 1]
        loaded = set(report.loaded)
        random = [name for name in tables if name not in loaded]
        if 2 * len(random) > len(tables):
            raise frozen_backbone_error(
                f"{path} has {len(tables) - len(random)} of its {len(tables)} weights besides "
                f"norms and biases, and no {random[0]}"
            )
        if random:
            logger.warning(
                f"{len(random)} weights of the frozen backbone, such as {random[0]}, are not in "
                f"{path}: they stay random"
            )

    def train(self) -> dict[str, Any]:
        """Train, then evaluate.

        Returns:
            The results of the evaluation at the end (see :meth:`test`).

        Raises:
            KeyboardInterrupt: the user stopped it; the log says where.
        """
        try:
            super().train()
        except KeyboardInterrupt:
            logger.warning(
                f"Interrupted in iteration {min(self.iter + 1, self.max_iter)} of {self.max_iter}; "
                "--resume goes on behind the last checkpoint, if there is one"
            )
            raise
        return self._last_eval_results

    def state_dict(self) -> dict[str, Any]:
        """Iteration, schedule and optimizer. detectron2 0.5 leaves the optimizer out."""
        return TrainerBase.state_dict(self) | {"_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            UserError: it is of a run with other parameters to train, or with another optimizer.
        """
        path = self.checkpointer.get_checkpoint_file()
        advice = "--resume needs the config that the run was started with"
        TrainerBase.load_state_dict(self, state_dict)
        try:
            state = state_dict["_trainer"]
            if _kind(state["optimizer"]) != _kind(self.optimizer.state_dict()):
                raise UserError(
                    f"{path} is of a run with another SOLVER.OPTIMIZER than "
                    f"{self.cfg.SOLVER.OPTIMIZER}; {advice}"
                )
            self._trainer.load_state_dict(_with_scaler(state, self._trainer.state_dict()))
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{path} is of a run that trained other parameters ({error}); {advice}"
            ) from error

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The model of MODEL.META_ARCHITECTURE, on MODEL.DEVICE."""
        model = build_model(cfg)
        logger.debug(f"Model:\n{model}")
        total = sum(p.numel() for p in model.parameters())
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        logger.info(
            f"{type(model).__name__}: {total / 1e6:.2f} M parameters, "
            f"{trained / 1e6:.2f} M trained, on {cfg.MODEL.DEVICE}"
        )
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See :func:`ddep.engine.optimizer.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: CfgNode, optimizer: torch.optim.Optimizer
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The schedule of SOLVER.LR_SCHEDULER_NAME: poly, cosine or steps, all with warm-up.

        Raises:
            UserError: another name.
        """
        if cfg.SOLVER.LR_SCHEDULER_NAME not in _SCHEDULES:
            raise UserError(
                f"SOLVER.LR_SCHEDULER_NAME is {cfg.SOLVER.LR_SCHEDULER_NAME!r}; "
                f"expected one of {', '.join(_SCHEDULES)}"
            )
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        """See :func:`ddep.data.build_train_loader`."""
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
        """See :func:`ddep.data.build_test_loader`."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """See :func:`ddep.evaluation.build_evaluator`."""
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | list[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate ``model`` on every data set in DATASETS.TEST.

        Writes the results to OUTPUT_DIR/inference/results.json too. Those of several data sets
        also make up one table, in the log and as results.md and results.csv beside that file.

        Args:
            cfg: the whole config.
            model: with the weights to evaluate.
            evaluators: one a data set; by default what :meth:`build_evaluator` makes.

        Returns:
            task -> metric -> number, below the data set's name if there are several; empty if there
            is none, and in other processes than the main one.
        """
        results = super().test(cfg, model, evaluators)
        if comm.is_main_process() and results:
            files = {"results.json": json.dumps(results, indent=2, default=float)}
            if len(set(cfg.DATASETS.TEST)) > 1:
                table = ResultsTable(results)
                files |= {"results.md": f"{table.to_markdown()}\n", "results.csv": table.to_csv()}
                logger.info(f"Results on {len(results)} data sets:\n{table.to_markdown()}")
            folder = os.path.join(cfg.OUTPUT_DIR, "inference")
            os.makedirs(folder, exist_ok=True)
            for name, text in files.items():
                with atomic_write(os.path.join(folder, name)) as file:
                    file.write(text.encode())
        return results


def _kind(optimizer: dict[str, Any]) -> set[str]:
    """What tells AdamW's state from SGD's. Other settings come and go with torch's versions."""
    return {"betas", "momentum"} & optimizer["param_groups"][0].keys()


def _with_scaler(saved: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """``saved``, with the ``grad_scaler`` of ``own`` if it is of a run without mixed precision."""
    if "grad_scaler" in own and not saved.get("grad_scaler"):
        return saved | {"grad_scaler": own["grad_scaler"]}
    return saved


class HeadLRScheduler(hooks.LRScheduler):
    """Advances the schedule, and logs the head's learning rate, BASE_LR times its factor.

    detectron2 logs that of the largest group, which can be the backbone's.
    """

    def before_train(self) -> None:
        super().before_train()
        self._best_param_group_id = 0

    def state_dict(self) -> dict[str, Any]:
        """How far the schedule is; not its length, so that SOLVER.MAX_ITER can grow on --resume."""
        return {"base_lrs": self.scheduler.base_lrs, "last_epoch": self.scheduler.last_epoch}
