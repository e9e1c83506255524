"""The training loop: detectron2's, with this project's parts."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from ddep.adaptation import adapts
from ddep.adaptation.adapted_model import MethodState
from ddep.checkpoint import Checkpointer
from ddep.distributed.data_parallel import distribute
from ddep.engine.adaptation import build_adapted_model, method_optimizers
from ddep.engine.batch_norm_check import check_batch_norms
from ddep.engine.checkpoint_hooks import checkpoint_hooks
from ddep.engine.ema import WeightAverage, evaluate_average
from ddep.engine.ending import end_if_asked
from ddep.engine.execution import prepare_execution
from ddep.engine.known_errors import explained
from ddep.engine.learning_rates import tells_transferred
from ddep.engine.optimizer import max_grad_norm
from ddep.engine.precise_batch_norm import precise_batch_norm
from ddep.engine.resume import RunCheckpoints, TrainingState
from ddep.engine.schedule import HeadLRScheduler
from ddep.engine.stop_signals import StopRequest
from ddep.engine.train_step import PRECISIONS, StepResult, TrainStep
from ddep.engine.trainer_parts import TrainerParts
from ddep.engine.transferred import TransferredParameters
from ddep.engine.whitening import build_whitened_model
from ddep.engine.writers import build_writers
from ddep.tasks import task_of

logger = logging.getLogger(__name__)

# Iterations from one line of the log to the next, at most.
_LOG_PERIOD = 20


class Trainer(TrainerParts):
    """Trains and evaluates what a config describes.

    A run that was interrupted and resumed continues as if it had not been: on the CPU, and with the
    same number of processes, it ends with the same bits; see :mod:`ddep.engine.resume`.

    Args:
        cfg: frozen, from :func:`ddep.engine.setup`.

    Attributes:
        average: the moving average of the weights, None unless SOLVER.EMA.ENABLED.
        adapted: the model with the losses of target images, None without MODEL.ADAPTATION.METHOD.
        whitened: either with the loss of MODEL.ISW, None without it.
        state: how far training has come.
        transferred: what is from MODEL.WEIGHTS, None if that makes no difference.

    Raises:
        UserError: a data set, a checkpoint or a value in ``cfg`` that does not fit.
    """

    def __init__(self, cfg: CfgNode) -> None:
        TrainerBase.__init__(self)  # DefaultTrainer's handles neither CPUs nor accumulation
        self.cfg = cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        self.max_iter = cfg.SOLVER.MAX_ITER
        model = self.build_model(cfg)
        task = task_of(cfg)
        check_batch_norms(cfg, model, task.images_per_sample(cfg))
        prepare_execution(cfg, model)
        optimizer = self.build_optimizer(cfg, model)
        self.average = (
            WeightAverage(model, cfg.SOLVER.EMA.DECAY) if cfg.SOLVER.EMA.ENABLED else None
        )
        self.adapted = build_adapted_model(cfg, model, self.average) if adapts(cfg) else None
        trained = self.adapted or model
        normalisers = self.adapted.normalisers if self.adapted else task.normalisers(model)
        self.whitened = build_whitened_model(cfg, model, trained, normalisers)
        if self.whitened is not None:
            trained, normalisers = self.whitened, self.whitened.normalisers
        amp = cfg.SOLVER.AMP
        self._trainer = TrainStep(
            distribute(trained),
            self.build_train_loader(cfg),
            optimizer,
            more_optimizers=method_optimizers(cfg, self.adapted),
            normalisers=normalisers,
            precision=PRECISIONS[amp.PRECISION] if amp.ENABLED else None,
            parts=cfg.SOLVER.ACCUMULATION_STEPS,
            max_grad_norm=max_grad_norm(cfg),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.state = TrainingState(self._trainer, self._hooks)
        self.checkpointer = Checkpointer(
            model,
            cfg.OUTPUT_DIR,
            encoder=cfg.MODEL.BACKBONE.FROZEN_WEIGHTS,
            saves_encoder=not cfg.MODEL.BACKBONE.FREEZE,
        )
        self.transferred = (
            TransferredParameters(model, cfg.SOLVER.NEW_ONLY_ITERS, self._rebuild_optimizer)
            if tells_transferred(cfg)
            else None
        )
        self.checkpoints = RunCheckpoints(
            self.checkpointer, self.state, self.average, self.max_iter, self.transferred
        )
        if self.adapted is not None:
            self.checkpointer.add_checkpointable("adaptation", MethodState(self.adapted.method))
        if self.whitened is not None:
            self.checkpointer.add_checkpointable("whitening", self.whitened.whitening)
        self._stop = StopRequest()
        self.register_hooks(self.build_hooks())

    def build_hooks(self) -> list[HookBase]:
        """What happens around the steps, in every process."""
        cfg = self.cfg
        precise = precise_batch_norm(cfg, self.checkpointer.model, self.build_train_loader)
        return [
            hooks.IterationTimer(),
            HeadLRScheduler(
                [self.build_lr_scheduler(cfg, other) for other in self._trainer.more_optimizers]
            ),
            *([precise] if precise else []),
            # Checkpoints come before evaluations: a signal in an evaluation ends training at once.
            *checkpoint_hooks(cfg, self.checkpoints, self._evaluate),
        ]

    def _rebuild_optimizer(self, transferred: Collection[str]) -> None:
        """Build optimizer and schedule again, now that it is known what is from MODEL.WEIGHTS."""
        model = self.checkpointer.model
        self._trainer.optimizer = self.build_optimizer(self.cfg, model, transferred)
        self.scheduler = self.build_lr_scheduler(self.cfg, self._trainer.optimizer)

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
            UserError: the disk is full, a data loader's process died, or another problem that the
                user can fix.
            SystemExit: a signal came during an evaluation, before which a checkpoint is saved.
        """
        self.start_iter = self.state.completed
        with explained(self.cfg.OUTPUT_DIR):
            if comm.is_main_process():
                # Last, so that it writes what the other hooks store, one evaluation at a time.
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
        """Do one step, and record its numbers."""
        held = self.transferred.held_in(self.state.completed) if self.transferred else ()
        result = self._trainer.run(self._stop.signum, held)
        if self.average is not None and not result.skipped:
            self.average.update()
        if self.adapted is not None:
            self.adapted.method.finish_step(result.skipped)
        if self.whitened is not None:
            self.whitened.whitening.finish_step(result.skipped)
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
        """Call the hooks, which may draw random numbers of their own; stop if there is a reason."""
        super().after_step()
        self.state.restore_random_numbers()
        self._end_if_asked()

    def _end_if_asked(self) -> None:
        end_if_asked(self._trainer.last, self.checkpoints, self.cfg.SOLVER.MAX_SKIPPED_STEPS)

    def _evaluate(self) -> dict[str, Any]:
        """Evaluate the weights and, if there is one, their average; see :meth:`test`."""
        self._end_if_asked()
        with self._stop.at_once():
            model = self.checkpointer.model
            results = self.test(self.cfg, model)
            if self.average is not None:
                drawn = self.storage._vis_data
                before = len(drawn)
                averaged = evaluate_average(self.test, self.cfg, model, self.average)
                drawn[before:] = [(f"ema/{name}", *rest) for name, *rest in drawn[before:]]
                if results:
                    results["ema"] = averaged
        self._last_eval_results = results
        return results
