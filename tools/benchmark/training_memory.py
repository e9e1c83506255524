"""Memory of a training step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class SavedTensors(contextlib.AbstractContextManager):
    """Inside, counts what autograd keeps for going backward.

    What several operations keep is counted once; a view counts as the whole that it is part of.
    It is kept alive until the counter goes.
    """

    def __init__(self, without: Iterable[Tensor] = ()) -> None:
        """
        Args:
            without: tensors that are there anyway, such as parameters.
        """
        self._without = {tensor.untyped_storage().data_ptr() for tensor in without}
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._hooks = saved_tensors_hooks(self._keep, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        """How much it is so far."""
        return sum(storage.nbytes() for storage in self._storages.values())

    def __enter__(self) -> SavedTensors:
        self._hooks.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._hooks.__exit__(*details)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._without:
            self._storages[storage.data_ptr()] = storage
        return tensor


def step_memory(step: Callable[[], object], tensors: Iterable[Tensor], device: torch.device) -> int:
    """Bytes that ``step`` needs beside what is there before it.

    Args:
        step: a forward and a backward pass.
        tensors: parameters and buffers.
        device: on a GPU, the maximum of PyTorch's allocator is taken; on the CPU, what autograd
            keeps, which is most of it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with SavedTensors(without=tensors) as saved:
        step()
    return saved.bytes
