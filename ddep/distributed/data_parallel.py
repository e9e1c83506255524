"""A model whose gradients are averaged over processes."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def distribute(model: nn.Module) -> nn.Module:
    """``model`` in a DistributedDataParallel if there are several processes, else as it is.

    Args:
        model: on the process's device. All get rank 0's weights.
    """
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).device.type == "cuda"
    devices = [torch.cuda.current_device()] if on_gpu else None
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)
