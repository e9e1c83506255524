"""The line in the log that shows the progress of training."""

from __future__ import annotations

import datetime
import logging
import re
import resource

import torch
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

logger = logging.getLogger(__name__)

# Numbers are medians over this many iterations.
_WINDOW = 20


class ProgressPrinter(EventWriter):
    """Logs iteration, time left, images per second, losses, learning rate and memory.

    One readable line: the losses of the intermediate decoder layers (``loss_ce_0`` and so on) are
    summed up as ``aux``. metrics.json and TensorBoard have each of them.
    """

    def __init__(self, max_iter: int, images_per_iteration: int) -> None:
        """
        Args:
            max_iter: where training ends.
            images_per_iteration: on all GPUs together (SOLVER.IMS_PER_BATCH).
        """
        self.max_iter = max_iter
        self.images_per_iteration = images_per_iteration

    def write(self) -> None:
        """Log the line for the current iteration; nothing once training is over."""
        storage = get_event_storage()
        if storage.iter >= self.max_iter:
            return
        words = [f"iter {storage.iter + 1}/{self.max_iter}"]
        histories = storage.histories()
        # The first iterations are not timed.
        if "time" in histories:
            seconds = histories["time"].median(_WINDOW)
            left = seconds * (self.max_iter - storage.iter - 1)
            storage.put_scalar("eta_seconds", left, smoothing_hint=False)
            words.append(f"eta {datetime.timedelta(seconds=int(left))}")
            words.append(f"{self.images_per_iteration / seconds:.4g} images/s")
        words += _losses(storage)
        if "lr" in histories:
            words.append(f"lr {histories['lr'].latest():.4g}")
        if "time" in histories:
            words.append(f"time {seconds:.3g} s")
        if "data_time" in histories:
            words.append(f"data_time {histories['data_time'].median(_WINDOW):.2g} s")
        words.append(f"max_mem {_peak_memory() / 2**20:.0f} MiB")
        logger.info("  ".join(words))


def _peak_memory() -> int:
    """Peak memory in bytes: of the tensors on a GPU, or without one, of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _losses(storage: EventStorage) -> list[str]:
    medians = {
        name: history.median(_WINDOW)
        for name, history in storage.histories().items()
        if "loss" in name
    }
    intermediate = [name for name in medians if re.search(r"_\d+$", name)]
    words = [f"{name} {value:.4g}" for name, value in medians.items() if name not in intermediate]
    if intermediate:
        words.append(f"aux {sum(medians[name] for name in intermediate):.4g}")
    return words
