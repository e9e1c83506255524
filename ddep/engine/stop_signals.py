"""Stops training between two steps when the system or the user asks for it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Signals that come within this many seconds are one request.
_ONE_REQUEST = 1.0


class StopRequest:
    """Records SIGINT (Ctrl-C) and SIGTERM, which would otherwise end the process.

    Attributes:
        signum: the number of the first signal received, 0 if there was none.
    """

    signum = 0
    _at_once = False

    @contextlib.contextmanager
    def noticed(self) -> Iterator[None]:
        """Inside, the first signal is recorded; a later one has its usual effect.

        Outside the main thread, where Python cannot handle signals, nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._usual = {number: signal.signal(number, self._record) for number in _SIGNALS}
        try:
            yield
        finally:
            self._restore()

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, the first signal raises SystemExit with status 128 + its number.

        For long work with nothing to save, which several processes cannot leave together.
        """
        self._at_once = True
        try:
            if self.signum:
                self._exit()
            yield
        finally:
            self._at_once = False

    def _exit(self) -> None:
        logger.warning(
            f"stopped by {signal.Signals(self.signum).name} in an evaluation; --resume continues "
            "from the checkpoint before it"
        )
        sys.exit(128 + self.signum)

    def _record(self, number: int, _: FrameType | None) -> None:
        if self.signum:
            # timeout(1), for one, sends its signal to a process and then to the whole group.
            if time.monotonic() - self._received > _ONE_REQUEST:
                self._restore()
                os.kill(os.getpid(), number)
            return
        self.signum, self._received = number, time.monotonic()
        if self._at_once:
            self._exit()
        logger.warning(
            f"{signal.Signals(number).name}: training stops after this iteration and saves a "
            "checkpoint; a second signal stops it at once"
        )

    def _restore(self) -> None:
        for number, handler in self._usual.items():
            signal.signal(number, handler)
