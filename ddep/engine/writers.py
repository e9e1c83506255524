"""Where the numbers of training go."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.engine import default_writers
from detectron2.utils.events import CommonMetricPrinter, EventWriter

from ddep.engine.progress import ProgressPrinter
from ddep.engine.wandb_writer import WandbWriter


def build_writers(cfg: CfgNode, *, resume: bool) -> list[EventWriter]:
    """A readable line for the console; metrics.json, TensorBoard and, if wanted, W&B.

    Args:
        cfg: the whole config.
        resume: whether the run continues an earlier one.
    """
    writers: list[EventWriter] = []
    if cfg.WANDB.ENABLED:
        writers.append(WandbWriter(cfg, resume=resume))
    for writer in default_writers(cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER):
        if isinstance(writer, CommonMetricPrinter):
            writer = ProgressPrinter(cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH)
        writers.append(writer)
    return writers
