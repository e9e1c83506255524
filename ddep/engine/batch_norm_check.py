"""Whether batch norms see enough images."""

from __future__ import annotations

import logging

from detectron2.config import CfgNode
from detectron2.layers.batch_norm import NaiveSyncBatchNorm
from detectron2.utils import comm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

logger = logging.getLogger(__name__)

# ImageNet error of a ResNet-50 with 32, 16, 8, 4 and 2 images per batch norm: 23.6, 23.7, 24.8,
# 27.3 and 34.7 % (Group Normalization, arXiv 1803.08494, table 2).
_ENOUGH = 8


def check_batch_norms(cfg: CfgNode, model: nn.Module, images_per_sample: int = 1) -> None:
    """Warn if batch norms of ``model`` take their statistics of few images in training.

    Args:
        cfg: reads SOLVER.
        model: in training mode; norms of a frozen encoder are in eval mode, and do not count.
        images_per_sample: more than 1 if the batch is of clips.
    """
    processes, parts = comm.get_world_size(), cfg.SOLVER.ACCUMULATION_STEPS
    alone = cfg.SOLVER.IMS_PER_BATCH // (processes * parts) * images_per_sample
    few: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            is_shared = isinstance(module, (nn.SyncBatchNorm, NaiveSyncBatchNorm))
            images = alone * processes if is_shared else alone
            if images < _ENOUGH:
                few[name] = images
    if few:
        name, images = next(iter(few.items()))
        logger.warning(
            f"{len(few)} batch norms, such as {name}, take mean and variance of "
            f"{images} image{'s' if images > 1 else ''} at a time (SOLVER.IMS_PER_BATCH "
            f"{cfg.SOLVER.IMS_PER_BATCH}, SOLVER.ACCUMULATION_STEPS {parts}, {processes} "
            f"process{'es' if processes > 1 else ''}); expected at least {_ENOUGH}, below which "
            "results get worse. Raise IMS_PER_BATCH or lower ACCUMULATION_STEPS; in layers with a "
            "NORM key, SyncBN sees the images of all GPUs, and GN and FrozenBN depend on none; "
            "TEST.PRECISE_BN.ENABLED True mends the statistics of evaluation"
        )
