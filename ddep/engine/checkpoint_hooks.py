"""When training saves checkpoints: at regular intervals, and after the best evaluation."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import HookBase, hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from ddep.checkpoint.checksum import remove_checksum
from ddep.engine.resume import BEST, RunCheckpoints
from ddep.errors import UserError
from ddep.evaluation.measures import Measure

logger = logging.getLogger(__name__)

_NUMBERED = re.compile(r"model_(\d{7,})\.pth")


class PeriodicCheckpoints(HookBase):
    """Saves ``model_0000099.pth`` and so on, named after the iteration, and ``model_final.pth``.

    All processes need this hook.
    """

    def __init__(
        self, checkpoints: RunCheckpoints, periods: Collection[int], keep: int = 0
    ) -> None:
        """
        Args:
            checkpoints: the run's.
            periods: a checkpoint is saved whenever the number of completed iterations is a multiple
                of one of these; 0 is ignored.
            keep: how many numbered checkpoints to keep; older ones are deleted once a new one is
                written. 0 keeps all.
        """
        self.checkpoints = checkpoints
        self.periods = [period for period in periods if period]
        self.keep = keep

    def after_step(self) -> None:
        completed = self.checkpoints.state.completed
        if any(completed % period == 0 for period in self.periods):
            self._save(f"model_{completed - 1:07d}")
        if self.checkpoints.is_finished:
            self._save("model_final")

    def _save(self, name: str) -> None:
        self.checkpoints.save(name)
        if self.keep and self.checkpoints.checkpointer.save_to_disk:
            self._delete_older()

    def _delete_older(self) -> None:
        folder = self.checkpoints.checkpointer.save_dir
        numbers = {}
        for name in os.listdir(folder):
            found = _NUMBERED.fullmatch(name)
            # Higher numbers belong to an earlier, longer run in this folder.
            if found and int(found[1]) < self.checkpoints.state.completed:
                numbers[int(found[1])] = os.path.join(folder, name)
        for number in sorted(numbers)[: -self.keep]:
            try:
                remove_checksum(numbers[number])
                os.remove(numbers[number])
            except OSError as error:
                logger.warning(f"{numbers[number]} cannot be deleted: {error.strerror}")


class BestCheckpoint(HookBase):
    """Saves ``model_best.pth`` whenever an evaluation is better than all before.

    All processes need this hook, after detectron2's ``EvalHook``. ``--resume`` never continues from
    this checkpoint by itself.
    """

    def __init__(
        self,
        checkpoints: RunCheckpoints,
        metric: str,
        mode: str,
        period: int,
        evaluate: Callable[[], Mapping[str, Any]],
    ) -> None:
        """
        Args:
            checkpoints: the run's; their state keeps the best evaluation so far: its value,
                completed iterations, metric and mode.
            metric: name of a result, such as ``panoptic_seg/PQ``.
            mode: "max" if higher is better, "min" if lower is.
            period: the ``EvalHook``'s, in iterations; 0 evaluates at the end only.
            evaluate: what the ``EvalHook`` calls; stores the results in the trainer's
                ``_last_eval_results``.
        """
        self.checkpoints = checkpoints
        self.state = checkpoints.state
        self.metric = metric
        self.mode = mode
        self.period = period
        self.evaluate = evaluate

    def before_train(self) -> None:
        completed = self.state.completed
        if not completed:
            return
        self.checkpoints.find_best()
        best = self.state.best
        if best and (best["metric"], best["mode"]) != (self.metric, self.mode):
            best = self.state.best = None
        # The checkpoint was saved before this evaluation, which may have been interrupted.
        is_due = self.period and completed % self.period == 0 and not self.checkpoints.is_finished
        if is_due and (best is None or best["completed"] != completed):
            logger.info(f"Evaluating the weights after iteration {completed}: they may be the best")
            self.evaluate()
            self._save_if_better()

    def after_step(self) -> None:
        # The last evaluation comes after the last step.
        is_evaluated = self.period and self.state.completed % self.period == 0
        if is_evaluated and not self.checkpoints.is_finished:
            self._save_if_better()

    def after_train(self) -> None:
        if self.checkpoints.is_finished:
            self._save_if_better()

    def _save_if_better(self) -> None:
        value, problem = None, ""
        if comm.is_main_process():
            try:
                value = self._value()
            except UserError as error:
                problem = str(error)
        value, problem = comm.all_gather((value, problem))[0]
        if problem:
            raise UserError(problem)
        if not self._is_better(value):
            return
        self.state.best = {
            "value": value,
            "completed": self.state.completed,
            "metric": self.metric,
            "mode": self.mode,
        }
        logger.info(
            f"Best {self.metric} so far: {value:.4g}, after iteration {self.state.completed}"
        )
        self.checkpoints.save(BEST, is_last=False)

    def _value(self) -> float:
        results = flatten_results_dict(self.trainer._last_eval_results)
        if self.metric not in results:
            # Metrics of single classes, which have a hyphen, are left out.
            known = [name for name in results if "-" not in name.rsplit("/", 1)[-1]]
            raise UserError(
                f"TEST.BEST_METRIC is {self.metric!r}, which evaluation does not compute; expected "
                f"one of {', '.join(known)}"
            )
        return float(results[self.metric])

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.state.best is None:
            return True
        best = self.state.best["value"]
        return value > best if self.mode == "max" else value < best


def checkpoint_hooks(
    cfg: CfgNode, checkpoints: RunCheckpoints, evaluate: Callable[[], Mapping[str, Any]]
) -> list[HookBase]:
    """The hooks that save and evaluate as the config says.

    Args:
        cfg: reads SOLVER and TEST.
        checkpoints: the run's.
        evaluate: evaluates, and stores the results in the trainer's ``_last_eval_results``.
    """
    period = cfg.TEST.EVAL_PERIOD
    periods = cfg.SOLVER.CHECKPOINT_PERIOD, period
    found: list[HookBase] = [
        PeriodicCheckpoints(checkpoints, periods, cfg.SOLVER.CHECKPOINTS_TO_KEEP),
        hooks.EvalHook(period, evaluate),
    ]
    if cfg.TEST.BEST_METRIC:
        metric, mode = cfg.TEST.BEST_METRIC, cfg.TEST.BEST_MODE
        found.append(BestCheckpoint(checkpoints, metric, mode, period, evaluate))
    return found


def check_checkpoints(cfg: CfgNode, measures: Mapping[str, Sequence[Measure]]) -> None:
    """Check the config keys of these hooks before training.

    Args:
        cfg: the whole config.
        measures: what is measured on each data set.

    Raises:
        UserError: a negative number to keep; a metric that no evaluation computes.
    """
    keep = cfg.SOLVER.CHECKPOINTS_TO_KEEP
    if keep < 0:
        raise UserError(f"SOLVER.CHECKPOINTS_TO_KEEP is {keep}; expected 0 (all) or more")
    metric, mode = cfg.TEST.BEST_METRIC, cfg.TEST.BEST_MODE
    if mode not in ("max", "min"):
        raise UserError(f"TEST.BEST_MODE is {mode!r}; expected max or min")
    if not metric:
        return
    if not measures:
        raise UserError(
            f"TEST.BEST_METRIC is {metric!r}, but DATASETS.TEST is empty; name a data set there"
        )
    metrics = {}
    for data_set, of_set in measures.items():
        for measure in of_set:
            prefix = f"{data_set}/{measure.name}/" if len(measures) > 1 else f"{measure.name}/"
            metrics[prefix] = list(measure.metrics)
            if measure.name == "sem_seg":
                metrics[prefix] += MetadataCatalog.get(data_set).get("class_subsets", ())
    if cfg.SOLVER.EMA.ENABLED:
        metrics |= {f"ema/{prefix}": names for prefix, names in metrics.items()}
    prefix = next((prefix for prefix in metrics if metric.startswith(prefix)), None)
    if prefix is None:
        examples = " or ".join(f"{prefix}{names[0]}" for prefix, names in metrics.items())
        raise UserError(f"TEST.BEST_METRIC is {metric!r}; expected a name such as {examples}")
    name = metric.removeprefix(prefix)
    if name not in metrics[prefix] and "-" not in name:  # metrics of single classes have a hyphen
        known = ", ".join(f"{prefix}{name}" for name in metrics[prefix])
        raise UserError(f"TEST.BEST_METRIC is {metric!r}; expected one of {known}")
