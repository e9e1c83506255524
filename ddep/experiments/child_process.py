"""A run as a child process, which never outlives this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class ChildProcess:
    """A command that runs in the background.

    It has a session of its own: Ctrl-C in a terminal does not reach it, and :meth:`signal` lets it
    save a checkpoint. On Linux it is killed when this process dies.

    Args:
        words: the command.
        output: file that its output is added to.
        environment: variables on top of this process's.
        keep_open: descriptors that it inherits.
    """

    def __init__(
        self,
        words: Sequence[str],
        output: Path,
        environment: Mapping[str, str],
        keep_open: Collection[int],
    ) -> None:
        self._started = time.monotonic()
        parent = os.getpid()

        def die_with_parent() -> None:
            if _libc is not None:
                _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != parent:
                    os._exit(1)

        with open(output, "ab") as file:
            self._process = subprocess.Popen(
                words,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=keep_open,
                preexec_fn=die_with_parent,
            )

    def status(self) -> int | None:
        """Its exit status, negative for the signal that ended it; None while it runs."""
        return self._process.poll()

    def seconds(self) -> float:
        """The time since its start."""
        return time.monotonic() - self._started

    def signal(self, number: int) -> None:
        """Send it a signal; SIGKILL goes to all processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)
