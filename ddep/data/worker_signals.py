"""Worker processes of data loaders leave it to their main process when to end."""

from __future__ import annotations

import os
import signal
import threading


def outlive_signals(_: int) -> None:
    """Ignore Ctrl-C, and SIGTERM unless the parent sends it; a ``worker_init_fn``.

    Terminals and batch systems send them to all processes of a run, but the main process needs
    batches until it has saved a checkpoint.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blocked, it is left to the thread that waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_if_the_parent_says_so, daemon=True).start()


def _end_if_the_parent_says_so() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
