"""Images are decoded, predicted and written at the same time, by threads."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ddep.data.record import Record
from ddep.errors import UserError


class PipelineJob(Protocol):
    """An image: its name for messages, and what the mapper is given."""

    @property
    def image(self) -> str | Path: ...

    @property
    def position(self) -> int: ...

    @property
    def record(self) -> Record: ...


Job = TypeVar("Job", bound=PipelineJob)
Result = TypeVar("Result")


class BatchPredictor(Protocol[Result]):
    """The part of :class:`ddep.inference.Predictor` that a pipeline needs."""

    def map_record(self, record: Mapping[str, Any], position: int) -> dict[str, Any]: ...

    def predict(self, inputs: Sequence[Mapping[str, Any]]) -> Sequence[Result]: ...


# Predictions that wait for the writer: more would only take memory.
_WAITING = 4


def run_pipeline(
    predictor: BatchPredictor[Result],
    jobs: Iterable[Job],
    write: Callable[[Job, Result], None],
    fail: Callable[[Job, UserError], None],
    *,
    batch: int,
    readers: int,
) -> None:
    """Predict images; while the model runs, others are decoded and written.

    Args:
        predictor: its model runs in this thread.
        jobs: the images.
        write: called for each prediction, in one other thread, which draws and writes.
        fail: called, in this thread, for an image that cannot be read or is too large for the
            memory; the others go on.
        batch: images of the model's input of one size that are predicted together.
        readers: threads that decode.

    Raises:
        UserError: what ``write`` raises; everything that was handed out is finished first.
    """
    reading, writing = ThreadPoolExecutor(readers), ThreadPoolExecutor(1)
    waiting: deque[Future[None]] = deque()
    try:
        samples = _decode(reading, predictor, jobs, ahead=readers + batch)
        for group in _group(_readable(samples, fail), batch):
            for job, prediction in _predict(predictor, group, fail):
                waiting.append(writing.submit(write, job, prediction))
                while len(waiting) > _WAITING:
                    waiting.popleft().result()
        while waiting:
            waiting.popleft().result()
    finally:
        reading.shutdown(cancel_futures=True)
        writing.shutdown()


def _decode(
    pool: ThreadPoolExecutor, predictor: BatchPredictor[Result], jobs: Iterable[Job], ahead: int
) -> Iterator[tuple[Job, Future[dict[str, Any]]]]:
    """Start to decode, a few images ahead, and yield them in order."""

    def read(job: Job) -> dict[str, Any]:
        return predictor.map_record(job.record, job.position)

    remaining = iter(jobs)
    started = deque((job, pool.submit(read, job)) for job in islice(remaining, ahead))
    while started:
        yield started.popleft()
        for job in islice(remaining, 1):
            started.append((job, pool.submit(read, job)))


def _readable(
    samples: Iterable[tuple[Job, Future[dict[str, Any]]]], fail: Callable[[Job, UserError], None]
) -> Iterator[tuple[Job, dict[str, Any]]]:
    for job, future in samples:
        try:
            sample = future.result()
        except UserError as error:
            fail(job, error)
        except MemoryError:
            fail(job, _too_large(job))
        else:
            yield job, sample


def _group(
    samples: Iterable[tuple[Job, dict[str, Any]]], batch: int
) -> Iterator[list[tuple[Job, dict[str, Any]]]]:
    """Batches of images of one size; few images wait for others of their size."""
    groups: dict[tuple[int, ...], list[tuple[Job, dict[str, Any]]]] = defaultdict(list)
    for job, sample in samples:
        size = tuple(sample["image"].shape)
        groups[size].append((job, sample))
        if len(groups[size]) == batch:
            yield groups.pop(size)
        elif sum(map(len, groups.values())) > 4 * batch:
            yield groups.pop(max(groups, key=lambda key: len(groups[key])))
    yield from groups.values()


def _predict(
    predictor: BatchPredictor[Result],
    group: list[tuple[Job, dict[str, Any]]],
    fail: Callable[[Job, UserError], None],
) -> Iterator[tuple[Job, Result]]:
    """Predict a batch; if the memory is too small for it, one image after the other."""
    jobs = [job for job, _ in group]
    try:
        found = predictor.predict([sample for _, sample in group])
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        if len(group) == 1:
            fail(jobs[0], _too_large(jobs[0]))
            return
    else:
        yield from zip(jobs, found, strict=True)
        return
    for one in group:
        yield from _predict(predictor, [one], fail)


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate" in text


def _too_large(job: Job) -> UserError:
    return UserError(
        f"image {job.image} is too large for the memory; make it smaller, or cut it into windows "
        "(TEST.SLIDE)"
    )
