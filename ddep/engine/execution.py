"""How a model is run: memory and compilation, neither of which changes what it computes."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ddep.host_memory import keep_freed_memory
from ddep.tasks import task_of


def prepare_execution(cfg: CfgNode, model: nn.Module, backend: str = "inductor") -> None:
    """Apply MODEL.DDEP.CHANNELS_LAST and MODEL.DDEP.COMPILE to ``model``, in place.

    Parameters stay the same objects under the same names. It comes before
    DistributedDataParallel, and before anything keeps a copy of the weights. On the CPU, the
    process also keeps the memory that it frees; see :mod:`ddep.host_memory`.

    Args:
        cfg: the config that ``model`` was built from.
        model: on its device.
        backend: of torch.compile.
    """
    if cfg.MODEL.DEVICE == "cpu":
        keep_freed_memory()
    if cfg.MODEL.DDEP.CHANNELS_LAST:
        model.to(memory_format=torch.channels_last)
        task_of(cfg).networks(model)[0].register_forward_pre_hook(_to_channels_last)
    if cfg.MODEL.DDEP.COMPILE:
        # Not the model as a whole: padding and matching are Python on lists of any length. Sizes
        # that change from batch to batch are compiled once more, for all sizes.
        for module in task_of(cfg).networks(model):
            module.compile(backend=backend)


def _to_channels_last(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Tensor]:
    (images,) = arguments
    return (images.contiguous(memory_format=torch.channels_last),)
