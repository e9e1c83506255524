"""The learning rate over the iterations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.projects.deeplab import build_lr_scheduler

from ddep.errors import UserError

_SCHEDULES = ("WarmupPolyLR", "WarmupCosineLR", "WarmupMultiStepLR")


def build_schedule(
    cfg: CfgNode, optimizer: torch.optim.Optimizer
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


class HeadLRScheduler(hooks.LRScheduler):
    """Advances the schedules, and logs the head's learning rate, BASE_LR times its factor.

    detectron2 logs that of the largest group, which can be the backbone's.
    """

    def __init__(self, others: Sequence[torch.optim.lr_scheduler.LRScheduler] = ()) -> None:
        """
        Args:
            others: schedules besides the trainer's own, of other optimizers.
        """
        super().__init__()
        self._others = tuple(others)

    def before_train(self) -> None:
        super().before_train()
        self._best_param_group_id = 0

    def after_step(self) -> None:
        super().after_step()
        for schedule in self._others:
            schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """The position in each schedule, without its length: SOLVER.MAX_ITER may grow on resume."""
        state = _position(self.scheduler)
        if self._others:
            state["others"] = [_position(schedule) for schedule in self._others]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`, of as many schedules."""
        state = dict(state_dict)
        for schedule, position in zip(self._others, state.pop("others", []), strict=True):
            schedule.load_state_dict(position)
        super().load_state_dict(state)


def _position(schedule: torch.optim.lr_scheduler.LRScheduler) -> dict[str, Any]:
    return {"base_lrs": schedule.base_lrs, "last_epoch": schedule.last_epoch}
