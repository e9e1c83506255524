"""Saving checkpoints in training: at regular intervals, and the best."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from ddep.checkpoint import Checkpointer, read_checkpoint
from ddep.checkpoint.checksum import add_missing_checksum, remove_checksum
from ddep.errors import UserError
from ddep.evaluation.denoising import METRICS

logger = logging.getLogger(__name__)

_BEST = "model_best"
_NUMBERED = re.compile(r"model_(\d{7,})\.pth")
# What the results of each task are called, and the metrics in them, the most usual first.
_RESULTS = {"PANOPTIC": "panoptic_seg", "SEMANTIC": "sem_seg", "INSTANCE": "segm"}
_METRICS = {
    "panoptic_seg": [f"{name}{kind}" for kind in ("", "_th", "_st") for name in ("PQ", "SQ", "RQ")],
    "sem_seg": ["mIoU", "fwIoU", "mACC", "pACC"],
    "segm": ["AP", "AP50", "AP75", "APs", "APm", "APl"],
    "denoising": METRICS,
}


class PeriodicCheckpoints(HookBase):
    """Saves ``model_0000099.pth`` and so on, named after the iteration, and ``model_final.pth``.

    All processes need this hook.
    """

    def __init__(self, checkpointer: Checkpointer, periods: Collection[int], keep: int = 0) -> None:
        """
        Args:
            checkpointer: saves into its folder.
            periods: iterations from one checkpoint to the next; of several, each counts by itself.
                0 is none.
            keep: how many numbered checkpoints stay; older ones are deleted once a new one is
                written. 0 deletes none.
        """
        self.checkpointer = checkpointer
        self.periods = [period for period in periods if period]
        self.keep = keep

    def after_step(self) -> None:
        iteration = self.trainer.iter
        if any((iteration + 1) % period == 0 for period in self.periods):
            self._save(f"model_{iteration:07d}", iteration)
        if iteration + 1 >= self.trainer.max_iter:
            self._save("model_final", iteration)

    def _save(self, name: str, iteration: int) -> None:
        self.checkpointer.save(name, iteration=iteration)
        if self.keep and self.checkpointer.save_to_disk:
            self._delete_older(iteration)

    def _delete_older(self, iteration: int) -> None:
        folder = self.checkpointer.save_dir
        numbers = {}
        for name in os.listdir(folder):
            found = _NUMBERED.fullmatch(name)
            # Higher numbers are of an earlier, longer run in this folder.
            if found and int(found[1]) <= iteration:
                numbers[int(found[1])] = os.path.join(folder, name)
        for number in sorted(numbers)[: -self.keep]:
            try:
                remove_checksum(numbers[number])
                os.remove(numbers[number])
            except OSError as error:
                logger.warning(f"{numbers[number]} cannot be deleted: {error.strerror}")


class BestCheckpoint(HookBase):
    """Saves ``model_best.pth`` whenever an evaluation is better than all before.

    All processes need this hook, behind detectron2's ``EvalHook``. ``--resume`` never goes on from
    this checkpoint by itself.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        metric: str,
        mode: str,
        period: int,
        evaluate: Callable[[], Mapping[str, Any]],
    ) -> None:
        """
        Args:
            checkpointer: saves into its folder.
            metric: name of a result, such as ``panoptic_seg/PQ``.
            mode: "max" or "min", which is the best.
            period: of the ``EvalHook``, in iterations; 0 evaluates at the end only.
            evaluate: what the ``EvalHook`` calls; leaves the results in the trainer's
                ``_last_eval_results``.
        """
        self.checkpointer = checkpointer
        self.metric = metric
        self.mode = mode
        self.period = period
        self.evaluate = evaluate
        # Of the best: value, iteration, metric and mode. None: there is none.
        self.best: dict[str, Any] | None = None

    def before_train(self) -> None:
        done = self.trainer.start_iter
        if not done:
            return
        self.best = comm.all_gather(self._best_on_disk() if comm.is_main_process() else None)[0]
        # The checkpoint was saved before this evaluation, which may not have come to its end.
        is_due = self.period and done % self.period == 0 and done < self.trainer.max_iter
        if is_due and (self.best is None or self.best["iteration"] != done - 1):
            logger.info(f"Evaluating the weights behind iteration {done}, for the best")
            self.evaluate()
            self._save_if_better(done - 1)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        # The last evaluation is behind the last step.
        if self.period and done % self.period == 0 and done != self.trainer.max_iter:
            self._save_if_better(self.trainer.iter)

    def after_train(self) -> None:
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._save_if_better(self.trainer.max_iter - 1)

    def state_dict(self) -> dict[str, Any]:
        """The best evaluation up to now."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`, unless it is of another metric."""
        if self._is_mine(state["best"]):
            self.best = state["best"]

    def _is_mine(self, best: Mapping[str, Any] | None) -> bool:
        return bool(best) and (best["metric"], best["mode"]) == (self.metric, self.mode)

    def _best_on_disk(self) -> dict[str, Any] | None:
        """What is the best when training is resumed; for the main process.

        A checkpoint is saved before the evaluation of the same iteration, of which it knows
        nothing; then model_best.pth tells.
        """
        path = os.path.join(self.checkpointer.save_dir, f"{_BEST}.pth")
        if not os.path.exists(path):
            return None
        try:
            found = read_checkpoint(path).get("best")
            add_missing_checksum(path)
        except UserError as error:
            logger.warning(f"{error}: the next evaluation is taken for the best")
            return None
        if self._is_mine(found) and found["iteration"] == self.trainer.start_iter - 1:
            return found
        return self.best

    def _save_if_better(self, iteration: int) -> None:
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
        self.best = {
            "value": value,
            "iteration": iteration,
            "metric": self.metric,
            "mode": self.mode,
        }
        logger.info(f"Best {self.metric} up to now: {value:.4g}, behind iteration {iteration + 1}")
        self.checkpointer.save(_BEST, is_last=False, iteration=iteration, best=self.best)

    def _value(self) -> float:
        results = flatten_results_dict(self.trainer._last_eval_results)
        if self.metric not in results:
            # Not those of each class, which have a hyphen.
            known = [name for name in results if "-" not in name.rsplit("/", 1)[-1]]
            raise UserError(
                f"TEST.BEST_METRIC is {self.metric!r}, which evaluation does not compute; expected "
                f"one of {', '.join(known)}"
            )
        return float(results[self.metric])

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        best = self.best["value"]
        return value > best if self.mode == "max" else value < best


def check_checkpoints(cfg: CfgNode, tasks: Mapping[str, Sequence[str]]) -> None:
    """Check the keys that these hooks use, as far as that can be done before training.

    Args:
        cfg: the whole config.
        tasks: what is evaluated on each data set, by :func:`ddep.evaluation.check_evaluation`.

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
    if not tasks:
        raise UserError(
            f"TEST.BEST_METRIC is {metric!r}, but DATASETS.TEST is empty; name a data set there"
        )
    metrics = {}
    for name in tasks:
        for task in [_RESULTS[task] for task in tasks[name]] or ["denoising"]:
            prefix = f"{name}/{task}/" if len(tasks) > 1 else f"{task}/"
            metrics[prefix] = list(_METRICS[task])
            if task == "sem_seg":
                metrics[prefix] += MetadataCatalog.get(name).get("class_subsets", ())
    if cfg.SOLVER.EMA.ENABLED:
        metrics |= {f"ema/{prefix}": names for prefix, names in metrics.items()}
    prefix = next((prefix for prefix in metrics if metric.startswith(prefix)), None)
    if prefix is None:
        examples = " or ".join(f"{prefix}{names[0]}" for prefix, names in metrics.items())
        raise UserError(f"TEST.BEST_METRIC is {metric!r}; expected a name such as {examples}")
    name = metric.removeprefix(prefix)
    if name not in metrics[prefix] and "-" not in name:  # those of each class have a hyphen
        known = ", ".join(f"{prefix}{name}" for name in metrics[prefix])
        raise UserError(f"TEST.BEST_METRIC is {metric!r}; expected one of {known}")
