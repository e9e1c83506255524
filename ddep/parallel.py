"""Call a function on many items in parallel, even if one of them crashes its process."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

from ddep.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items handed out ahead, per worker: enough to keep it busy, but few in memory.
_AHEAD = 8


class Crash:
    """Stands for a result: the worker process died, of a decoder's fault or out of memory, say."""


def available_cores() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_workers(workers: int) -> None:
    """Raise :class:`UserError` unless ``--workers`` is at least 1."""
    if workers < 1:
        raise UserError(f"--workers is {workers}; expected at least 1")


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result | Crash]:
    """Call ``function`` on each item, in worker processes; yield the results in the items' order.

    If a worker process dies, the items in progress are tried again one at a time; only those that
    crash a process again yield a :class:`Crash`. Exceptions of ``function`` are raised here.

    Args:
        function: picklable, like items and results.
        items: taken one after the other, a few ahead of the results.
        workers: number of processes.
    """
    items = iter(items)
    pending: deque[tuple[Item, Future]] = deque()
    pool = _pool(workers)
    try:
        while True:
            for item in islice(items, _AHEAD * workers - len(pending)):
                try:
                    future = _submit(pool, function, item)
                except BrokenProcessPool:  # an earlier item broke it
                    pool.shutdown()
                    pool = _pool(workers)
                    future = _submit(pool, function, item)
                pending.append((item, future))
            if not pending:
                return
            item, future = pending.popleft()
            try:
                result = future.result()
            except BrokenProcessPool:
                result = _call_alone(function, item)
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _call_alone(function: Callable[[Item], Result], item: Item) -> Result | Crash:
    with _pool(1) as pool:
        try:
            return _submit(pool, function, item).result()
        except BrokenProcessPool:
            return Crash()


def _pool(workers: int) -> ProcessPoolExecutor:
    # Ctrl-C ends the main process, and that ends the workers.
    return ProcessPoolExecutor(
        workers, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )


def _submit(pool: ProcessPoolExecutor, function: Callable[[Item], Result], item: Item) -> Future:
    # This may start workers, which must not receive Ctrl-C before they ignore it.
    with _interrupt_blocked():
        return pool.submit(function, item)


@contextlib.contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Hold Ctrl-C back; processes that are started meanwhile inherit this."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
