"""Memory of a training step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class SavedTensors(contextlib.AbstractContextManager):
    """Counts, within its block, the memory that autograd keeps for the backward pass.

    A storage that several operations keep is counted once, and a view counts as its whole storage.
    Storages live until the counter is deleted.
    """

    def __init__(self, without: Iterable[Tensor] = ()) -> None:
        """
        Args:
            without: tensors that exist anyway, such as parameters.
        """
        self._without = {tensor.untyped_storage().data_ptr() for tensor in without}
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._hooks = saved_tensors_hooks(self._keep, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        """The bytes counted so far."""
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
    """Return the bytes that ``step`` needs besides what was allocated before.

    Args:
        step: a forward and a backward pass.
        tensors: parameters and buffers.
        device: on a GPU, PyTorch's allocator knows the peak; on the CPU, what autograd keeps is
            counted, which is most of it.
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
