"""Everything that is saved for --resume, and how a run starts or continues from a checkpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm

from ddep.checkpoint import Checkpointer, read_checkpoint
from ddep.checkpoint.checksum import add_missing_checksum
from ddep.engine.ema import WeightAverage
from ddep.engine.frozen_backbone import check_backbone_is_loaded
from ddep.engine.random_state import random_state, set_random_state
from ddep.engine.train_step import TrainStep
from ddep.engine.transferred import TransferredParameters
from ddep.errors import UserError
from ddep.tasks import task_of

logger = logging.getLogger(__name__)

BEST = "model_best"
_ADVICE = "--resume needs the config that the run was started with"


class TrainingState:
    """How far training has come: what a checkpoint holds besides weights and their average.

    Attributes:
        completed: the number of completed iterations, skipped ones included.
        best: the best evaluation so far, as :class:`BestCheckpoint` keeps it; None if there is
            none.
    """

    def __init__(self, step: TrainStep, hooks: Sequence[HookBase]) -> None:
        """
        Args:
            step: holds optimizer, loss scale and data loader.
            hooks: the trainer's, some of which have a state; the list may grow.
        """
        self.completed = 0
        self.best: dict[str, Any] | None = None
        self._step = step
        self._hooks = hooks
        self._random: dict[str, Any] | None = None

    def complete_iteration(self) -> None:
        """Count one more iteration, and keep the random state that the next one starts from."""
        self.completed += 1
        self._random = random_state()

    def restore_random_numbers(self) -> None:
        """Set the random generators to their state after the last iteration."""
        if self._random is not None:
            set_random_state(self._random)

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` takes; all processes have to call it.

        - ``iteration``: the last completed one, counted from 0, as in detectron2;
        - ``hooks``: states by class name, such as the schedule's;
        - ``_trainer``: optimizer and loss scale;
        - ``processes``: for each one, where its data loader and its random generators are;
        - ``best``: see above.
        """
        own = {"random": self._random, "loader": self._step.data_loader.state_dict()}
        hooks = {type(hook).__qualname__: hook.state_dict() for hook in self._hooks}
        return {
            "iteration": self.completed - 1,
            "hooks": {name: state for name, state in hooks.items() if state},
            "_trainer": self._step.state_dict(),
            "processes": comm.all_gather(own),
            "best": self.best,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was called.

        Raises:
            UserError: the state is from a run with other parameters, optimizer or data.
        """
        optimizer = self._step.optimizer.state_dict()
        try:
            if _kind(state["_trainer"]["optimizer"]) != _kind(optimizer):
                raise UserError(f"the run had another SOLVER.OPTIMIZER; {_ADVICE}")
            self._step.load_state_dict(state["_trainer"])
        except (KeyError, ValueError) as error:
            raise UserError(f"the run trained other parameters ({error}); {_ADVICE}") from error
        for hook in self._hooks:
            name = type(hook).__qualname__
            if name in state.get("hooks", {}):
                hook.load_state_dict(state["hooks"][name])
        self.completed = state["iteration"] + 1
        self.best = state.get("best")
        self._load_process(state.get("processes", []))

    def _load_process(self, processes: list[dict[str, Any]]) -> None:
        if not processes:
            logger.warning(
                "the checkpoint does not say which images come next: the data start from the first"
            )
            return
        own = processes[0]
        if len(processes) == comm.get_world_size():
            own = processes[comm.get_rank()]
            self._random = own["random"]
        else:
            logger.warning(
                f"the checkpoint is from a run with {len(processes)} processes, this run has "
                f"{comm.get_world_size()}: it continues, but with other random numbers"
            )
        self._step.data_loader.load_state_dict(own["loader"])


class RunCheckpoints:
    """Saves a run's checkpoints, and starts or resumes the run from one.

    All processes have to call its methods.

    Attributes:
        state: the run's.
        checkpointer: saves and loads model, state and, if there is one, the average of the weights.
        max_iter: iterations of the whole run.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        state: TrainingState,
        average: WeightAverage | None,
        max_iter: int,
        transferred: TransferredParameters | None = None,
    ) -> None:
        self.state = state
        self.checkpointer = checkpointer
        self.max_iter = max_iter
        self._transferred = transferred
        if transferred is not None:  # loaded first: the optimizer's state needs its groups
            checkpointer.add_checkpointable("transferred", transferred)
        checkpointer.add_checkpointable("trainer", state)
        self._average = average
        if average is not None:
            checkpointer.add_checkpointable("ema", average)

    @property
    def is_finished(self) -> bool:
        """Whether all iterations are done."""
        return self.state.completed >= self.max_iter

    def save(self, name: str = "", *, is_last: bool = True) -> str:
        """Save a checkpoint; no process continues before it is written.

        Args:
            name: without extension; by default ``model_final`` at the end of the run, and before
                that ``model_0000099`` after 100 iterations.
            is_last: whether ``--resume`` continues from it.

        Returns:
            Its path.
        """
        last = self.state.completed - 1
        name = name or ("model_final" if self.is_finished else f"model_{last:07d}")
        more = {"best": self.state.best} if name == BEST else {}
        self.checkpointer.save(name, is_last=is_last, iteration=last, **more)
        comm.synchronize()
        return os.path.join(self.checkpointer.save_dir, f"{name}.pth")

    def resume(self) -> bool:
        """Continue from the last checkpoint in OUTPUT_DIR; False if there is none.

        Raises:
            UserError: no checkpoint there is valid, or it belongs to another run.
        """
        if not self.checkpointer.has_checkpoint():
            return False
        path = self.checkpointer.get_checkpoint_file()
        self.checkpointer.load(path)
        if comm.is_main_process():
            add_missing_checksum(path)
        completed = self.state.completed
        if self.is_finished:
            logger.warning(
                f"SOLVER.MAX_ITER is {self.max_iter}, and {path} has done {completed} iterations: "
                "nothing is trained; raise SOLVER.MAX_ITER to continue"
            )
        else:
            logger.info(f"Resuming after iteration {completed} of {self.max_iter}")
        return True

    def find_best(self) -> None:
        """Read the best evaluation so far from model_best.pth, if that is newer than the state.

        A checkpoint is saved before its iteration is evaluated, and does not have that result.
        """
        best = self._newest_best() if comm.is_main_process() else None
        self.state.best = comm.all_gather(best)[0]

    def _newest_best(self) -> dict[str, Any] | None:
        path = os.path.join(self.checkpointer.save_dir, f"{BEST}.pth")
        if not os.path.exists(path):
            return self.state.best
        try:
            found = read_checkpoint(path).get("best")
            add_missing_checksum(path)
        except UserError as error:
            logger.warning(f"{error}: the next evaluation counts as the best")
            return None
        is_newer = bool(found) and found.get("completed") == self.state.completed
        return found if is_newer else self.state.best

    def start(self, cfg: CfgNode) -> None:
        """Start from the task's initial weights, or from random numbers if there are none.

        Raises:
            UserError: the checkpoint does not fit, has no weights for a frozen encoder, or leaves
                nothing new where only new parameters are to train.
        """
        task = task_of(cfg)
        paths = task.initial_weights(cfg)
        if not paths:
            logger.info("MODEL.WEIGHTS is empty: starting from random numbers")
            if self._transferred is not None:
                self._transferred.start([])
            return
        loaded: set[str] = set()
        for path in paths:
            self.checkpointer.load(path, checkpointables=[], transfer=task.transferred(cfg))
            loaded.update(self.checkpointer.report.loaded)
        if task.freezes_encoder(cfg):
            check_backbone_is_loaded(self.checkpointer, task.freeze_key)
        task.check_initial_weights(cfg, self.checkpointer.model, self.checkpointer.report.loaded)
        if self._transferred is not None:
            self._transferred.start(loaded)
        if self._average is not None:
            self._average.restart()


def _kind(optimizer: dict[str, Any]) -> set[str]:
    """The keys that tell AdamW's state from SGD's. Other keys depend on torch's version."""
    return {"betas", "momentum"} & optimizer["param_groups"][0].keys()
