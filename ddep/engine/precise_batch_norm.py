"""Statistics of batch norms that are those of many batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import hooks
from torch import nn


class PreciseBatchNorm(hooks.PreciseBN):
    """detectron2's hook (TEST.PRECISE_BN), over the images that training sees next.

    detectron2's continues after those that it took the last time, which a resumed run does not
    know.
    """

    def update_stats(self) -> None:
        """Compute the statistics anew, in every norm that trains."""
        self._data_loader.load_state_dict(self.trainer.data_loader.state_dict())
        self._data_iter = None  # starts there
        super().update_stats()


def precise_batch_norm(
    cfg: CfgNode, model: nn.Module, build_train_loader: Callable[[CfgNode], Any]
) -> PreciseBatchNorm | None:
    """The hook that TEST.PRECISE_BN asks for; None if it does not."""
    if not cfg.TEST.PRECISE_BN.ENABLED:
        return None
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 0  # another loader beside the training's
    return PreciseBatchNorm(
        cfg.TEST.EVAL_PERIOD, model, build_train_loader(cfg), cfg.TEST.PRECISE_BN.NUM_ITER
    )
