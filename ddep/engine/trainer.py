"""The training loop: detectron2's, with this project's parts."""

from __future__ import annotations

import logging
import math
import signal
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import nn

from ddep.checkpoint import Checkpointer
from ddep.data import build_test_loader, build_train_loader
from ddep.distributed.data_parallel import distribute
from ddep.engine.checkpoint_hooks import BestCheckpoint, PeriodicCheckpoints
from ddep.engine.ema import WeightAverage, evaluate_average
from ddep.engine.execution import prepare_execution
from ddep.engine.known_errors import explained
from ddep.engine.optimizer import build_optimizer, max_grad_norm
from ddep.engine.precise_batch_norm import precise_batch_norm
from ddep.engine.resume import RunCheckpoints, TrainingState
from ddep.engine.schedule import HeadLRScheduler, build_schedule
from ddep.engine.stop_signals import StopRequest
from ddep.engine.train_step import PRECISIONS, StepResult, TrainStep
from ddep.engine.writers import build_writers
from ddep.errors import Stopped
from ddep.evaluation import output_folder, write_results
from ddep.tasks import task_of

logger = logging.getLogger(__name__)

# Iterations from one line of the log to the next, at most.
_LOG_PERIOD = 20


class Trainer(DefaultTrainer):
    """Trains and evaluates what a config describes.

    A run that was interrupted and resumed continues as if it had not been: on the CPU, and with the
    same number of processes, it ends with the same bits; see :mod:`ddep.engine.resume`.

    Args:
        cfg: frozen, from :func:`ddep.engine.setup`.

    Attributes:
        average: the moving average of the weights, None unless SOLVER.EMA.ENABLED.
        state: how far training has come.

    Raises:
        UserError: a data set, a checkpoint or a value in ``cfg`` that does not fit.
    """

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)  # DefaultTrainer's knows of neither CPUs nor accumulation
        self.cfg = cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        self.max_iter = cfg.SOLVER.MAX_ITER
        model = self.build_model(cfg)
        prepare_execution(cfg, model)
        optimizer = self.build_optimizer(cfg, model)
        amp = cfg.SOLVER.AMP
        self._trainer = TrainStep(
            distribute(model),
            self.build_train_loader(cfg),
            optimizer,
            normalisers=task_of(cfg).normalisers(model),
            precision=PRECISIONS[amp.PRECISION] if amp.ENABLED else None,
            parts=cfg.SOLVER.ACCUMULATION_STEPS,
            max_grad_norm=max_grad_norm(cfg),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.average = (
            WeightAverage(model, cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None
        )
        self.state = TrainingState(self._trainer, self._hooks)
        self.checkpointer = Checkpointer(model, cfg.OUTPUT_DIR)
        self.checkpoints = RunCheckpoints(
            self.checkpointer, self.state, self.average, self.max_iter
        )
        self._stop = StopRequest()
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase | None]:
        """What happens around the steps, in every process: schedule, checkpoints, evaluation."""
        cfg = self.cfg
        found = [
            hooks.IterationTimer(),
            HeadLRScheduler(),
            precise_batch_norm(cfg, self.model, self.build_train_loader),
            # Before each evaluation too: a signal in it ends training at once.
            PeriodicCheckpoints(
                self.checkpoints,
                (cfg.SOLVER.CHECKPOINT_PERIOD, cfg.TEST.EVAL_PERIOD),
                cfg.SOLVER.CHECKPOINTS_TO_KEEP,
            ),
            hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate),
        ]
        if cfg.TEST.BEST_METRIC:
            metric, mode = cfg.TEST.BEST_METRIC, cfg.TEST.BEST_MODE
            found.append(
                BestCheckpoint(self.checkpoints, metric, mode, cfg.TEST.EVAL_PERIOD, self._evaluate)
            )
        return found

    def build_writers(self) -> list[EventWriter]:
        """See :func:`ddep.engine.writers.build_writers`."""
        return build_writers(self.cfg, resume=self.state.completed > 0)

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint in OUTPUT_DIR, or start from MODEL.WEIGHTS.

        Args:
            resume: whether to continue, if there is a checkpoint.

        Raises:
            UserError: see :class:`ddep.engine.resume.RunCheckpoints`.
        """
        if not (resume and self.checkpoints.resume()):
            self.checkpoints.start(self.cfg)

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
        self.start_iter = self.state.completed
        with explained(self.cfg.OUTPUT_DIR):
            if comm.is_main_process():
                # After all others, so that what they find is written, evaluations one by one.
                period = math.gcd(_LOG_PERIOD, self.cfg.TEST.EVAL_PERIOD)
                self.register_hooks([hooks.PeriodicWriter(self.build_writers(), period)])
            with self._stop.noticed():
                super().train()
        return self._last_eval_results

    def before_train(self) -> None:
        """Call the hooks, start the loader, and continue with a resumed run's random numbers."""
        super().before_train()
        self._trainer.start_loading()
        self.state.restore_random_numbers()

    def run_step(self) -> None:
        """Do one step, and take in its numbers."""
        result = self._trainer.run(self._stop.signum)
        if self.average is not None and not result.skipped:
            self.average.update()
        self.state.complete_iteration()
        if comm.is_main_process():
            self._store(result)
        if result.problem:
            logger.warning(
                f"iteration {self.state.completed} is skipped ({result.skipped_in_a_row} in a "
                f"row; SOLVER.MAX_SKIPPED_STEPS: {self.cfg.SOLVER.MAX_SKIPPED_STEPS}): "
                f"{result.problem}"
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
        self.state.restore_random_numbers()
        self._end_if_it_must()

    def _end_if_it_must(self) -> None:
        """Save and raise, in all processes, if a signal came or too many steps were skipped."""
        last = self._trainer.last
        if last is None:
            return
        if last.stop:
            path = self.checkpoints.save()
            raise Stopped(
                f"stopped by {signal.Signals(last.stop).name} after iteration "
                f"{self.state.completed} of {self.max_iter}; saved {path}; --resume continues "
                "from there",
                last.stop,
            )
        if last.skipped_in_a_row >= self.cfg.SOLVER.MAX_SKIPPED_STEPS:
            path = self.checkpoints.save()
            raise FloatingPointError(
                f"{last.skipped_in_a_row} steps in a row, up to iteration {self.state.completed}, "
                f"had a loss or gradients that are NaN or infinite; {path} has the weights from "
                "before; lower SOLVER.BASE_LR, lengthen the warm-up, clip gradients, or look at "
                "the images that the log names"
            )

    def _evaluate(self) -> dict[str, Any]:
        """Evaluate the weights and, if there is, their average; see :meth:`test`."""
        self._end_if_it_must()
        with self._stop.at_once():
            results = self.test(self.cfg, self.model)
            if self.average is not None:
                drawn = self.storage._vis_data
                before = len(drawn)
                averaged = evaluate_average(self.test, self.cfg, self.model, self.average)
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

        Args:
            cfg: the whole config.
            model: with the weights to evaluate.
            evaluators: one a data set; by default what :meth:`build_evaluator` makes.

        Returns:
            task -> metric -> number, below the data set's name if there are several; empty if there
            is none, and in other processes than the main one. See
            :func:`ddep.evaluation.write_results` for the files.
        """
        results = super().test(cfg, model, evaluators)
        if comm.is_main_process() and results:
            write_results(cfg, results)
        return results
