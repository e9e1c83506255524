"""A data loader that neither signals nor random generators disturb."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.data.build import trivial_batch_collator
from torch.utils.data import DataLoader, Dataset

# macOS does not tell who sent a signal: there, SIGTERM ends workers as usual.
_KNOWS_SENDERS = hasattr(signal, "sigwaitinfo")


class SteadyLoader(DataLoader):
    """torch's DataLoader for lists of samples, whose workers stop only when their parent says so.

    Terminals and batch systems send Ctrl-C and SIGTERM to all processes of a run, but the main
    process needs batches until it has saved a checkpoint. The global random generators are not
    touched.
    """

    def __init__(
        self, samples: Dataset, batch_sampler: Iterable[list[Any]], num_workers: int
    ) -> None:
        super().__init__(
            samples,
            batch_sampler=batch_sampler,
            num_workers=num_workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=_ignore_signals,
            # Otherwise it would draw from the global generator.
            generator=torch.Generator(),
        )

    def __iter__(self) -> Any:
        if not _KNOWS_SENDERS:
            return super().__iter__()
        # Workers inherit blocked signals, and so do the threads that libraries start in them before
        # any of our code runs.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ignore_signals(_: int) -> None:
    """Ignore Ctrl-C, and also SIGTERM (which is blocked) unless the parent sends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _KNOWS_SENDERS:
        threading.Thread(target=_exit_if_parent_says_so, daemon=True).start()


def _exit_if_parent_says_so() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
