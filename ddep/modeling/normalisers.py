"""What losses are averaged over, when a batch is spread over processes or accumulated in parts."""

from __future__ import annotations

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor


def average_over_processes(counts: Tensor, device: torch.device | str) -> Tensor:
    """The total over all processes by their number.

    A loss is a sum over a batch by its total count. DistributedDataParallel averages gradients over
    processes, so each process divides its sum by the average count, and the gradients are those of
    one process with the whole batch. The same goes for parts whose gradients are added up: all are
    divided by the count of all.

    Every process has to call this. A total of 0, whose sum is 0 as well, counts as 1.

    Args:
        counts: (N,) float64, of this process's images: ``normalisers`` of a model, added up over
            the parts of an accumulated batch. It stays as it is.
        device: the model's, which the processes exchange tensors on.

    Returns:
        (N,) float64 on ``device``, for the model's ``forward``.
    """
    total = counts.to(device, copy=True)
    if comm.get_world_size() > 1:
        dist.all_reduce(total)
    return torch.where(total == 0, 1.0, total) / comm.get_world_size()
