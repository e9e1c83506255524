"""Sums and counts of a batch that processes or accumulated parts share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor


def add_up(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add up the counts of the parts of a batch, name by name."""
    total: Counter[str] = Counter()
    for part in counts:
        total.update(part)
    return dict(total)


def sum_over_processes(*tensors: Tensor) -> None:
    """Replace each tensor by its sum over all processes, which all have to call this."""
    if comm.get_world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def average_over_processes(
    counts: Mapping[str, float], device: torch.device | str
) -> dict[str, Tensor]:
    """Average each count over all processes.

    A loss is a sum over a batch divided by the batch's count. DistributedDataParallel averages
    gradients over processes, so each process divides its own sum by the average count. Then the
    gradients are those of one process with the whole batch. The same holds for parts of a batch
    whose gradients are added up: each divides by the count of all parts.

    Every process has to call this, with the same names. A total count of 0, where the sum is also
    0, is replaced by 1.

    Args:
        counts: this process's counts by name: ``normalisers`` of a model, added up over the parts
            of an accumulated batch by :func:`add_up`.
        device: the model's, on which the processes exchange tensors.

    Returns:
        The same names; each a float64 scalar on ``device``, for the model's ``forward``.
    """
    names = sorted(counts)
    total = torch.tensor([counts[name] for name in names], dtype=torch.float64, device=device)
    sum_over_processes(total)
    average = torch.where(total == 0, 1.0, total) / comm.get_world_size()
    return dict(zip(names, average.unbind(), strict=True))
