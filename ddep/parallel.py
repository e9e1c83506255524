"""The same work on many things with all cores, even if one of them ends a worker process."""

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

# How much work is handed out ahead, per worker: enough to keep them busy, and no more in memory.
_AHEAD = 8


class Crash:
    """In place of a result: the worker process died, as of a decoder's fault or lack of memory."""


def available_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_workers(workers: int) -> None:
    """Raise :class:`UserError` unless ``--workers`` is a possible number."""
    if workers < 1:
        raise UserError(f"--workers is {workers}; expected at least 1")


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result | Crash]:
    """Call ``function`` on each item, in worker processes; yield the results in the items' order.

    Where a worker process dies, what was being done is tried again, one item at a time, and only
    the items that end a process again yield a :class:`Crash`. An exception is raised here.

    Args:
        function: can be pickled, as items and results can.
        items: taken one after the other, few ahead of the results.
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
                except BrokenProcessPool:  # by an item before
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
    # May start workers; those are not to hear of Ctrl-C before they ignore it either.
    with _interrupt_blocked():
        return pool.submit(function, item)


@contextlib.contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Let Ctrl-C wait. Processes that are started meanwhile inherit that."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
