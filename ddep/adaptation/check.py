"""Checks of what a config says about adaptation, before anything starts."""

from __future__ import annotations

from detectron2.config import CfgNode

from ddep.adaptation.registry import adapts, method_of
from ddep.errors import UserError


def check_adaptation(cfg: CfgNode) -> None:
    """Raise :class:`UserError` if MODEL.ADAPTATION cannot work with the rest of ``cfg``."""
    target = list(cfg.DATASETS.TARGET)
    if not adapts(cfg):
        if target:
            raise UserError(
                f"DATASETS.TARGET has {target[0]}, but MODEL.ADAPTATION.METHOD is empty, so that "
                "nothing would use it; name a method, or leave DATASETS.TARGET empty"
            )
        return
    method = method_of(cfg)
    key = f"MODEL.ADAPTATION.METHOD {method.name}"
    if not target:
        raise UserError(
            f"{key} needs target images, but DATASETS.TARGET is empty; name a data set, such as "
            "images:<folder>"
        )
    if method.needs_teacher and not cfg.SOLVER.EMA.ENABLED:
        raise UserError(
            f"{key} needs a teacher, the moving average of the weights; set SOLVER.EMA.ENABLED to "
            "True"
        )
    if cfg.TEST.PRECISE_BN.ENABLED:
        raise UserError(
            f"TEST.PRECISE_BN.ENABLED is True, which would take batch norm statistics of labelled "
            f"and target images together; with {key} set it to False"
        )
    method.check(cfg)
