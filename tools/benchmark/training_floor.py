"""The floor of a computation: the time of its matrix products and convolutions alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.flop_counter import flop_registry

# Of each product, the fastest run counts; a run repeats short products for this time.
_RUNS = 5
_RUN_SECONDS = 0.002


@dataclass(frozen=True)
class Floor:
    """The products of a computation.

    Attributes:
        seconds: the sum of their times, each the fastest of some runs.
        flops: additions and multiplications.
    """

    seconds: float
    flops: int


@dataclass(frozen=True)
class _Layout:
    """All that the time of a product depends on, of one tensor."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def tensor(self) -> Tensor:
        """A tensor like that, with random numbers."""
        steps = zip(self.size, self.stride, strict=True)
        numel = 1 + sum((size - 1) * stride for size, stride in steps if size)
        storage = torch.zeros(numel, dtype=self.dtype, device=self.device)
        if self.dtype.is_floating_point:
            storage.normal_()
        return storage.as_strided(self.size, self.stride)


class Products(TorchDispatchMode):
    """Records, within its block, the calls whose floating point operations PyTorch can count.

    These are matrix products, convolutions, fused attention, and the backward passes of the last
    two. Products within operators of other libraries, this project's included, are not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: Counter[tuple[Any, ...]] = Counter()
        self._flops = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        result = func(*args, **kwargs)
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            leaves, tree = tree_flatten((args, kwargs))
            layouts = tuple(_layout(leaf) for leaf in leaves)
            self._calls[func, layouts, tree] += 1
            self._flops += count(*args, **kwargs, out_val=result)
        return result

    def floor(self) -> Floor:
        """Time each of the recorded calls alone, on random tensors of equal layout."""
        seconds = 0.0
        for (func, layouts, tree), calls in self._calls.items():
            leaves = [leaf.tensor() if isinstance(leaf, _Layout) else leaf for leaf in layouts]
            args, kwargs = tree_unflatten(leaves, tree)
            seconds += calls * _fastest(lambda f=func, a=args, k=kwargs: f(*a, **k))
        return Floor(seconds, self._flops)


def _layout(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return tuple(leaf) if isinstance(leaf, list) else leaf
    return _Layout(tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device)


@torch.no_grad()
def _fastest(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    _time(call, 1)
    repeats = max(1, min(100, int(_RUN_SECONDS / _time(call, 1))))
    return min(_time(call, repeats) / repeats for _ in range(_RUNS))


def _time(call: Callable[[], object], repeats: int) -> float:
    _wait()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
