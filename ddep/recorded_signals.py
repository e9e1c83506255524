"""SIGINT and SIGTERM for a process that works through others."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

# Signals that come within this many seconds are one.
_ONE_SIGNAL = 1.0


@contextlib.contextmanager
def recorded_signals(
    act: Callable[[Sequence[int]], None] | None = None,
) -> Iterator[list[int]]:
    """Inside, SIGINT and SIGTERM are recorded, and have no other effect than that of ``act``.

    Signals within a second count as one: ``timeout`` and others signal a process and its group.

    Args:
        act: called at each signal with the numbers of all so far.

    Yields:
        A list to which the number of each signal is added.
    """
    numbers: list[int] = []
    last = float("-inf")

    def record(number: int, _: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last > _ONE_SIGNAL:
            numbers.append(number)
            if act is not None:
                act(numbers)
        last = time.monotonic()

    before = {number: signal.signal(number, record) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield numbers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
