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

# macOS cannot tell who sends a signal: there, SIGTERM ends workers as usual.
_KNOWS_SENDERS = hasattr(signal, "sigwaitinfo")


class SteadyLoader(DataLoader):
    """torch's loader of lists of samples, whose worker processes end when their parent wants it.

    Terminals and batch systems send Ctrl-C and SIGTERM to all processes of a run, but the main
    process needs batches until it has saved a checkpoint. The global generators stay as they are.
    """

    def __init__(
        self, samples: Dataset, batch_sampler: Iterable[list[Any]], num_workers: int
    ) -> None:
        super().__init__(
            samples,
            batch_sampler=batch_sampler,
            num_workers=num_workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=_outlive_signals,
            # Else it would draw from the global generator.
            generator=torch.Generator(),
        )

    def __iter__(self) -> Any:
        if not _KNOWS_SENDERS:
            return super().__iter__()
        # Workers inherit what is blocked, and so do the threads that libraries start in them before
        # any of our code runs.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outlive_signals(_: int) -> None:
    """Ignore Ctrl-C, and SIGTERM, which is blocked, unless the parent sends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if _KNOWS_SENDERS:
        threading.Thread(target=_end_if_the_parent_says_so, daemon=True).start()


def _end_if_the_parent_says_so() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
