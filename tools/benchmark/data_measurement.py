"""Time mappers in turns, so that whatever slows the machine down affects all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice

import cv2
import torch
from torch.utils.data import DataLoader

from data_jobs import TorchvisionMapper, mapper_config
from ddep.data.mappers import build_mapper
from ddep.data.record import Record

OURS = "this project"
THEIRS = {"torchvision, Pillow images": False, "torchvision, tensors": True}
# Quartiles need at least this many rounds, however long they take.
FEWEST_ROUNDS = 5
BATCH = 8
# Batches of each worker in a round. Several, because the first takes longer.
BATCHES = 4


@dataclass(frozen=True)
class Case:
    """One line of the table: a mapper, the images it reads, and worker processes.

    Attributes:
        mapper: ``INPUT.DATASET_MAPPER_NAME``.
        images: the images' name in the table.
        records: the images.
        workers: number of a ``DataLoader``'s workers; 0 calls the mapper without a loader.
    """

    mapper: str
    images: str
    records: list[Record]
    workers: int


@dataclass(frozen=True)
class Result:
    """Seconds of every round by contestant; in a round, each worker makes ``images`` images."""

    case: Case
    images: int
    seconds: dict[str, list[float]]

    def rate(self, name: str) -> float:
        """Images per second and worker: the median over the rounds."""
        return self.images / statistics.median(self.seconds[name])

    def ratios(self) -> tuple[float, float, float]:
        """Quartiles over rounds of the speed, relative to the faster of the others."""
        faster = max((name for name in self.seconds if name != OURS), key=self.rate)
        pairs = zip(self.seconds[faster], self.seconds[OURS], strict=True)
        return tuple(statistics.quantiles((theirs / ours for theirs, ours in pairs), n=4))


def measure(case: Case, seconds: float) -> Result:
    """Time all contestants in turns, after an untimed round; each worker has one thread.

    Args:
        case: what to measure.
        seconds: time after which no new round begins, once there were five.
    """
    contestants = {OURS: build_mapper(mapper_config(case.mapper), is_train=True)}
    for name, tensors in THEIRS.items():
        contestants[name] = TorchvisionMapper(case.mapper, tensors)
    images = BATCH * BATCHES if case.workers else len(case.records)
    with one_thread():
        rounds = {name: _round(case, function, images) for name, function in contestants.items()}
        times: dict[str, list[float]] = {name: [] for name in rounds}
        for run in rounds.values():
            run()
        order = list(rounds)
        end = time.perf_counter() + seconds
        while len(times[OURS]) < FEWEST_ROUNDS or time.perf_counter() < end:
            for name in order:
                start = time.perf_counter()
                rounds[name]()
                times[name].append(time.perf_counter() - start)
            # The order rotates, so that none always runs on the caches that the same one left.
            order = order[1:] + order[:1]
    return Result(case, images, times)


def _round(case: Case, function: Callable[[Record], object], images: int) -> Callable[[], None]:
    """A function that lets each worker make ``images`` images."""
    if not case.workers:

        def run() -> None:
            for record in case.records:
                function(record)

        return run
    records = list(islice(cycle(case.records), images * case.workers))
    loader = DataLoader(
        _Mapped(records, function),
        batch_size=BATCH,
        num_workers=case.workers,
        collate_fn=list,
        persistent_workers=True,
        worker_init_fn=_start_worker,
    )

    def run() -> None:
        for _ in loader:
            pass

    return run


class _Mapped(torch.utils.data.Dataset):
    def __init__(self, records: list[Record], function: Callable[[Record], object]) -> None:
        self.records = records
        self.function = function

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> object:
        return self.function(self.records[index])


def _start_worker(_: int) -> None:
    # PyTorch's loader has set its own threads.
    cv2.setNumThreads(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch and OpenCV use one thread within the block."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
