"""Batch norm statistics over many batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import hooks
from torch import nn


class PreciseBatchNorm(hooks.PreciseBN):
    """detectron2's hook (TEST.PRECISE_BN), but over the images that training sees next.

    detectron2's own continues after the images that it used last, which a resumed run does not
    know.
    """

    def update_stats(self) -> None:
        """Recompute the statistics of every norm in training mode."""
        self._data_loader.load_state_dict(self.trainer.data_loader.state_dict())
        self._data_iter = None  # starts there
        super().update_stats()


def precise_batch_norm(
    cfg: CfgNode, model: nn.Module, build_train_loader: Callable[[CfgNode], Any]
) -> PreciseBatchNorm | None:
    """The hook if TEST.PRECISE_BN is enabled, else None."""
    if not cfg.TEST.PRECISE_BN.ENABLED:
        return None
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 0  # a second loader beside training's
    return PreciseBatchNorm(
        cfg.TEST.EVAL_PERIOD, model, build_train_loader(cfg), cfg.TEST.PRECISE_BN.NUM_ITER
    )
