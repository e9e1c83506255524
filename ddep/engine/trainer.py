"""The training loop: detectron2's, with this project's parts."""

from __future__ import annotations

import logging
import math
import os
import signal
import weakref
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import CommonMetricPrinter, EventWriter
from torch import nn

from ddep.checkpoint import Checkpointer
from ddep.checkpoint.checksum import add_missing_checksum
from ddep.checkpoint.groups import TRANSFERABLE
from ddep.data import build_test_loader, build_train_loader
from ddep.distributed.data_parallel import distribute
from ddep.engine.checkpoint_hooks import BestCheckpoint, PeriodicCheckpoints
from ddep.engine.checks import is_frozen
from ddep.engine.ema import WeightAverage
from ddep.engine.frozen_backbone import check_backbone_is_loaded
from ddep.engine.known_errors import explained
from ddep.engine.optimizer import build_optimizer, max_grad_norm
from ddep.engine.precise_batch_norm import PreciseBatchNorm
from ddep.engine.progress import ProgressPrinter
from ddep.engine.random_state import random_state, set_random_state
from ddep.engine.schedule import HeadLRScheduler, build_schedule
from ddep.engine.stop_signals import StopRequest
from ddep.engine.train_step import PRECISIONS, StepResult, TrainStep
from ddep.engine.wandb_writer import WandbWriter
from ddep.errors import Stopped, UserError
from ddep.evaluation import ResultsTable, build_evaluator, output_folder
from ddep.evaluation.results_files import write_results
from ddep.inference.evaluation_pictures import SegmentationPictures
from ddep.modeling.execution import prepare_execution

logger = logging.getLogger(__name__)

# Iterations from one line of the log to the next, at most.
_LOG_PERIOD = 20


class Trainer(DefaultTrainer):
    """Trains and evaluates what a config describes, denoiser or segmentation model.

    A run that was interrupted and resumed goes on as if it had not been: on the CPU, and with the
    same number of processes, it ends with the same bits.

    Args:
        cfg: frozen, from :func:`ddep.engine.setup`.

    Attributes:
        average: the moving average of the weights, None unless SOLVER.EMA.ENABLED.

    Raises:
        UserError: a data set, a checkpoint or a value in ``cfg`` that does not fit.
    """

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)  # DefaultTrainer's knows of neither CPUs nor accumulation
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        model = self.build_model(cfg)
        prepare_execution(cfg, model)
        optimizer = self.build_optimizer(cfg, model)
        amp = cfg.SOLVER.AMP
        self._trainer = TrainStep(
            distribute(model),
            self.build_train_loader(cfg),
            optimizer,
            precision=PRECISIONS[amp.PRECISION] if amp.ENABLED else None,
            parts=cfg.SOLVER.ACCUMULATION_STEPS,
            max_grad_norm=max_grad_norm(cfg),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.average = None
        extras: dict[str, Any] = {"trainer": weakref.proxy(self)}
        if cfg.SOLVER.EMA.ENABLED:
            self.average = extras["ema"] = WeightAverage(model, cfg.SOLVER.EMA.DECAY)
        self.checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, **extras)
        self._stop = StopRequest()
        self._random_state: dict[str, Any] | None = None
        self._resumed_from = ""
        self._step: StepResult | None = None
        self._finished = -1  # the last iteration that is done
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase | None]:
        """What happens around the steps, in every process: schedule, checkpoints, evaluation."""
        cfg = self.cfg
        found = [
            hooks.IterationTimer(),
            HeadLRScheduler(),
            self._precise_batch_norm(),
            # Before each evaluation too: a signal in it ends training at once.
            PeriodicCheckpoints(
                self.checkpointer,
                (cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD),
                cfg.SOLVER.CHECKPOINTS_TO_KEEP,
            ),
            hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate),
        ]
        if cfg.TEST.BEST_METRIC:
            found.append(
                BestCheckpoint(
                    self.checkpointer,
                    cfg.TEST.BEST_METRIC,
                    cfg.TEST.BEST_MODE,
                    cfg.TEST.EVAL_PERIOD,
                    self._evaluate,
                )
            )
        return found

    def _precise_batch_norm(self) -> HookBase | None:
        settings = self.cfg.TEST.PRECISE_BN
        if not settings.ENABLED:
            return None
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0  # another loader beside the training's
        return PreciseBatchNorm(
            cfg.TEST.EVAL_PERIOD, self.model, self.build_train_loader(cfg), settings.NUM_ITER
        )

    def build_writers(self) -> list[EventWriter]:
        """A readable line for the console; metrics.json, TensorBoard and, if wanted, W&B."""
        writers: list[EventWriter] = []
        if self.cfg.WANDB.ENABLED:
            writers.append(WandbWriter(self.cfg, resume=self.start_iter > 0))
        for writer in super().build_writers():
            if isinstance(writer, CommonMetricPrinter):
                writer = ProgressPrinter(self.max_iter, self.cfg.SOLVER.IMS_PER_BATCH)
            writers.append(writer)
        return writers

    def resume_or_load(self, resume: bool = True) -> None:
        """Go on from the last checkpoint in OUTPUT_DIR, or start from MODEL.WEIGHTS.

        A segmentation model that starts takes over what MODEL.DDEP.TRANSFER lists.

        Args:
            resume: whether to go on, if there is a checkpoint.

        Raises:
            UserError: the checkpoint does not fit, or has no weights for a frozen backbone.
        """
        if resume and self.checkpointer.has_checkpoint():
            path = self._resumed_from = self.checkpointer.get_checkpoint_file()
            self.checkpointer.load(path)
            if comm.is_main_process():
                add_missing_checksum(path)
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
            check_backbone_is_loaded(self.checkpointer)
        if self.average is not None:
            self.average.restart()

    def train(self) -> dict[str, Any]:
        """Train, then evaluate.

        Returns:
            The results of the evaluation at the end (see :meth:`test`).

        Raises:
            Stopped: SIGINT or SIGTERM stopped it, and a checkpoint was saved.
            FloatingPointError: too many steps in a row were skipped; a checkpoint was saved.
            UserError: the disk is full, a loader's process died, or something else that the user
                can mend.
            SystemExit: a signal came during an evaluation, before which a checkpoint is saved.
        """
        with explained(self.cfg.OUTPUT_DIR):
            if comm.is_main_process():
                # Behind all others, so that what they find is written, evaluations one by one.
                period = math.gcd(_LOG_PERIOD, self.cfg.TEST.EVAL_PERIOD)
                self.register_hooks([hooks.PeriodicWriter(self.build_writers(), period)])
            with self._stop.noticed():
                super().train()
        return self._last_eval_results

    def before_train(self) -> None:
        """Call the hooks, start the loader, and go on with a resumed run's random numbers."""
        super().before_train()
        self._trainer.start_loading()
        if self._random_state is not None:
            set_random_state(self._random_state)

    def run_step(self) -> None:
        """Do one step, and take in its numbers."""
        result = self._trainer.run(self._stop.signum)
        if self.average is not None and not result.skipped:
            self.average.update()
        self._random_state = random_state()
        self._step, self._finished = result, self.iter
        if comm.is_main_process():
            self._store(result)
        if result.problem:
            logger.warning(
                f"iteration {self.iter + 1} is skipped ({self._trainer.skipped_in_a_row} in a row; "
                f"SOLVER.MAX_SKIPPED_STEPS: {self.cfg.SOLVER.MAX_SKIPPED_STEPS}): {result.problem}"
            )

    def _store(self, result: StepResult) -> None:
        self.storage.put_scalar("data_time", result.data_time)
        if result.skipped:
            return  # infinite numbers would spoil every mean that they are part of
        self.storage.put_scalar("grad_norm", result.grad_norm)
        self.storage.put_scalar("total_loss", sum(result.losses.values()))
        if len(result.losses) > 1:
            self.storage.put_scalars(**result.losses)

    def after_step(self) -> None:
        """Call the hooks, which may draw random numbers for themselves; end training if it must."""
        super().after_step()
        set_random_state(self._random_state)
        self._end_if_it_must()

    def _end_if_it_must(self) -> None:
        """Save and raise, in all processes, if a signal came or too many steps were skipped."""
        skipped = self._trainer.skipped_in_a_row
        is_stopped = self._step is not None and self._step.stop
        if not is_stopped and skipped < self.cfg.SOLVER.MAX_SKIPPED_STEPS:
            return
        done = self._finished + 1
        path = self._save()
        if is_stopped:
            raise Stopped(
                f"stopped by {signal.Signals(self._step.stop).name} behind iteration {done} of "
                f"{self.max_iter}; saved {path}; --resume goes on from there",
                self._step.stop,
            )
        raise FloatingPointError(
            f"{skipped} steps in a row, up to iteration {done}, had a loss or gradients that are "
            f"NaN or infinite; {path} has the weights from before; lower SOLVER.BASE_LR, lengthen "
            "the warm-up, clip gradients, or look at the images that the log names"
        )

    def _save(self) -> str:
        """Save a checkpoint now; its path. No process goes on before it is written."""
        is_last = self._finished == self.max_iter - 1
        name = "model_final" if is_last else f"model_{self._finished:07d}"
        self.checkpointer.save(name, iteration=self._finished)
        comm.synchronize()
        return os.path.join(self.cfg.OUTPUT_DIR, f"{name}.pth")

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs; all processes have to call it.

        Iteration, hooks, optimizer and loss scaling; and of each process where its loader and its
        random number generators are.
        """
        own = {"random": self._random_state, "loader": self.data_loader.state_dict()}
        state = {"_trainer": self._trainer.state_dict(), "processes": comm.all_gather(own)}
        # Between two steps, and before the first and behind the last one, iter is something else.
        state["iteration"] = self._finished
        return TrainerBase.state_dict(self) | state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            UserError: it is of a run with other parameters to train, or with another optimizer.
        """
        path = self._resumed_from
        advice = "--resume needs the config that the run was started with"
        TrainerBase.load_state_dict(self, state_dict)
        self._finished = self.iter
        try:
            state = state_dict["_trainer"]
            if _kind(state["optimizer"]) != _kind(self.optimizer.state_dict()):
                raise UserError(
                    f"{path} is of a run with another SOLVER.OPTIMIZER than "
                    f"{self.cfg.SOLVER.OPTIMIZER}; {advice}"
                )
            self._trainer.load_state_dict(state)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{path} is of a run that trained other parameters ({error}); {advice}"
            ) from error
        self._load_process(state_dict.get("processes", []), path)

    def _load_process(self, processes: list[dict[str, Any]], path: str) -> None:
        if not processes:
            logger.warning(f"{path} does not say where its images were: the data start anew")
            return
        if len(processes) == comm.get_world_size():
            own = processes[comm.get_rank()]
            self._random_state = own["random"]
        else:
            own = processes[0]
            logger.warning(
                f"{path} is of a run with {len(processes)} processes, this one has "
                f"{comm.get_world_size()}: it goes on, but with other random numbers"
            )
        self.data_loader.load_state_dict(own["loader"])

    def _evaluate(self) -> dict[str, Any]:
        """Evaluate the weights and, if there is, their average; see :meth:`test`."""
        self._end_if_it_must()
        with self._stop.at_once():
            results = self.test(self.cfg, self.model)
            if self.average is not None:
                drawn = self.storage._vis_data
                before = len(drawn)
                averaged = test_average(self.cfg, self.model, self.average)
                drawn[before:] = [(f"ema/{name}", *rest) for name, *rest in drawn[before:]]
                if results:
                    results["ema"] = averaged
        self._last_eval_results = results
        return results

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
        """See :func:`ddep.engine.schedule.build_schedule`."""
        return build_schedule(cfg, optimizer)

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
        """What :func:`ddep.evaluation.build_evaluator` makes, and pictures of segmentations."""
        folder = output_folder(cfg, dataset_name)
        evaluator = build_evaluator(cfg, dataset_name, folder)
        if cfg.MODEL.META_ARCHITECTURE == "DenoisingPretrainer":
            return evaluator  # which draws by itself
        return DatasetEvaluators([evaluator, SegmentationPictures(cfg, dataset_name, folder)])

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
            table = ResultsTable(results) if len(set(cfg.DATASETS.TEST)) > 1 else None
            if table:
                logger.info(f"Results on {len(results)} data sets:\n{table.to_markdown()}")
            write_results(cfg.OUTPUT_DIR, results, table)
        return results


def _kind(optimizer: dict[str, Any]) -> set[str]:
    """What tells AdamW's state from SGD's. Other settings come and go with torch's versions."""
    return {"betas", "momentum"} & optimizer["param_groups"][0].keys()


def test_average(cfg: CfgNode, model: nn.Module, average: WeightAverage) -> dict[str, Any]:
    """:meth:`Trainer.test` of ``model`` with its averaged weights; files are in OUTPUT_DIR/ema."""
    logger.info("Evaluating the moving average of the weights")
    with average.in_place():
        return Trainer.test(with_output_in(cfg, "ema"), model)


def with_output_in(cfg: CfgNode, folder: str) -> CfgNode:
    """A copy of ``cfg``, frozen, whose OUTPUT_DIR is ``folder`` in that of ``cfg``."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, folder)
    cfg.freeze()
    return cfg
