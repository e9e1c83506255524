"""The learning rate over the iterations."""

from __future__ import annotations

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
    """Advances the schedule, and logs the head's learning rate, BASE_LR times its factor.

    detectron2 logs that of the largest group, which can be the backbone's.
    """

    def before_train(self) -> None:
        super().before_train()
        self._best_param_group_id = 0

    def state_dict(self) -> dict[str, Any]:
        """The position in the schedule, without its length: SOLVER.MAX_ITER may grow on resume."""
        return {"base_lrs": self.scheduler.base_lrs, "last_epoch": self.scheduler.last_epoch}
