"""Batches depend only on seed and position, and continue exactly where a state was saved."""

from __future__ import annotations

import copy
import functools
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
import torch
from detectron2.utils import comm

from ddep.data.image_reader import UnreadableImageError
from ddep.data.samplers import (
    GroupSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
    TrainSampler,
)
from ddep.data.samples import TrainingSamples
from ddep.data.train_loader import TrainLoader
from ddep.errors import UserError, one_line

COUNT = 11
BATCH = 6
SAMPLERS = {
    "training": TrainingSampler(COUNT),
    "repeat factor": RepeatFactorTrainingSampler(torch.linspace(1, 3, COUNT)),
    "groups": GroupSampler([range(4), range(4, COUNT), np.array([2, 9])], [1.0, 2.0, 0.5]),
}


def fake_mapper(broken: tuple[int, ...], record: dict) -> dict:
    """Draws from all generators, as augmentation and noise do."""
    number = record["number"]
    if number in broken:
        raise UnreadableImageError(f"image {number} cannot be read")
    return {
        "number": number,
        # Two of three images are landscape, so that the groups fill at different times.
        **({"width": 4, "height": 3} if number % 3 else {"width": 3, "height": 3}),
        "drawn": (random.gauss(0, 1), np.random.randn(), torch.randn(()).item()),
    }


def make(
    sampler: TrainSampler = SAMPLERS["training"],
    *,
    workers: int = 0,
    grouping: bool = False,
    broken: tuple[int, ...] = (),
    seed: int = 3,
    batch_size: int = BATCH,
    max_unreadable: int = 5,
    mapper=None,
    **origin,
) -> TrainLoader:
    records = [{"file_name": f"{i}.jpg", "number": i} for i in range(COUNT)]
    samples = TrainingSamples(
        [records[:4], records[4:]], mapper or functools.partial(fake_mapper, broken), max_unreadable
    )
    return TrainLoader(
        samples,
        sampler,
        seed=seed,
        batch_size=batch_size,
        num_workers=workers,
        aspect_ratio_grouping=grouping,
        origin=origin,
    )


def take(loader: TrainLoader, count: int) -> list[list[dict]]:
    return list(islice(loader, count))


@pytest.fixture
def as_process(monkeypatch):
    """Makes this process one of many, with a given rank."""

    def become(rank: int, world_size: int) -> None:
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world_size)

    return become


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("grouping", [False, True])
def test_workers_make_no_difference(sampler: TrainSampler, grouping: bool) -> None:
    options = {"grouping": grouping, "broken": (1, 7)}
    expected = take(make(sampler, **options), 8)
    assert {len(batch) for batch in expected} == {BATCH}
    numbers = [sample["number"] for batch in expected for sample in batch]
    assert not {1, 7} & set(numbers) and len(set(numbers)) == COUNT - 2
    drawn = [number for batch in expected for sample in batch for number in sample["drawn"]]
    assert len(set(drawn)) == len(drawn) == 8 * BATCH * 3
    for workers in (1, 2):
        random.seed(workers)
        np.random.seed(workers)
        torch.manual_seed(workers)
        assert take(make(sampler, workers=workers, **options), 8) == expected
    assert take(make(sampler, seed=4, **options), 8) != expected


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_share_one_stream(sampler: TrainSampler, world_size: int, as_process) -> None:
    expected = take(make(sampler, broken=(1, 7)), 8)
    shares = []
    for rank in range(world_size):
        as_process(rank, world_size)
        shares.append(take(make(sampler, broken=(1, 7)), 8))
    for parts, whole in zip(zip(*shares, strict=True), expected, strict=True):
        in_turn = [sample for step in zip(*parts, strict=True) for sample in step]
        assert in_turn == whole


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
@pytest.mark.parametrize("grouping", [False, True])
@pytest.mark.parametrize("rank", [None, 1])
def test_resuming_after_every_batch(sampler, grouping: bool, rank: int | None, as_process) -> None:
    if rank is not None:
        as_process(rank, 2)
    make_one = functools.partial(make, sampler, grouping=grouping, broken=(1, 7))
    loader = make_one(seed=3)
    batches, states = [], [loader.state_dict()]
    for batch in islice(loader, 12):
        batches.append(batch)
        states.append(pickle.loads(pickle.dumps(loader.state_dict())))
    assert any(state["waiting"] for state in states) == grouping
    assert states[-1]["unreadable"].keys() == {"1.jpg", "7.jpg"}
    for done, state in enumerate(states):
        resumed = make_one(seed=99)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        assert take(resumed, len(batches) - done) == batches[done:]
        assert resumed.state_dict() == states[-1]


@pytest.mark.parametrize("grouping", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_prefetched_batches_do_not_count(grouping: bool, workers: int) -> None:
    make_one = functools.partial(make, grouping=grouping, broken=(1, 7))
    expected = make_one()
    loader = make_one(workers=workers)
    for done, (batch, same) in enumerate(zip(islice(loader, 5), expected, strict=False), 1):
        assert batch == same and loader.state_dict() == expected.state_dict()
        if done == 3:
            state = loader.state_dict()
    resumed = make_one(workers=workers)
    resumed.load_state_dict(state)
    again = make_one()
    assert take(resumed, 4) == take(again, 7)[3:]
    assert resumed.state_dict() == again.state_dict()


def test_iterating_again_continues() -> None:
    loader = make(grouping=True)
    assert take(loader, 3) + take(loader, 4) == take(make(grouping=True), 7)


@pytest.mark.parametrize("workers", [0, 2])
def test_global_generators_are_not_touched(workers: int) -> None:
    def draw() -> tuple[float, ...]:
        return random.gauss(0, 1), np.random.randn(), torch.randn(()).item()

    expected = [draw() for _ in range(6)]
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    drawn = [draw()]
    loader = make(workers=workers, grouping=True, broken=(1, 7))
    drawn.append(draw())
    for _ in islice(loader, 3):
        drawn.append(draw())
    loader.state_dict()
    assert [*drawn, draw()] == expected


def test_unreadable_images_count_after_resuming(caplog) -> None:
    loader = make(broken=(1,), max_unreadable=1)
    take(loader, 4)
    state = loader.state_dict()
    assert state["unreadable"] == {"1.jpg": "image 1 cannot be read"}
    caplog.clear()
    resumed = make(broken=(1,), max_unreadable=1)
    resumed.load_state_dict(state)
    take(resumed, 4)
    assert not [r for r in caplog.records if r.name == "ddep.data.unreadable"]
    resumed = make(broken=(2,), max_unreadable=1)
    resumed.load_state_dict(state)
    with pytest.raises(UserError, match="2 training images cannot be read, but .* the last: image"):
        take(resumed, 4)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"world_size": 2}, "processes: 2 instead of 1"),
        ({"batch_size": 4}, "SOLVER.IMS_PER_BATCH: 4 instead of 6"),
        ({"grouping": False}, "ASPECT_RATIO_GROUPING: False instead of True"),
    ],
)
def test_other_batches_continue_at_the_same_position(change, named, caplog, as_process) -> None:
    options = {"grouping": True, "broken": (1, 7)}
    loader = make(**options)
    drawn = [sample for batch in take(loader, 4) for sample in batch]
    state = loader.state_dict()
    assert state["waiting"] and state["position"] == len(drawn) + len(state["waiting"])
    stream = [sample for batch in take(make(broken=(1, 7)), 20) for sample in batch]
    world_size = change.pop("world_size", 1)
    options |= {"grouping": False} | change
    continued = []
    for rank in range(world_size):
        as_process(rank, world_size)
        caplog.clear()
        resumed = make(**options)
        resumed.load_state_dict(copy.deepcopy(state))
        [message] = [r.getMessage() for r in caplog.records if r.name == "ddep.data.train_loader"]
        assert named in message and f"at image {state['position']} of the stream" in message
        assert f"; {len(state['waiting'])} that waited" in message
        assert resumed.state_dict()["waiting"] == []
        assert resumed.unreadable == state["unreadable"]
        continued.append([sample for batch in take(resumed, 4) for sample in batch])
    in_turn = [sample for step in zip(*continued, strict=True) for sample in step]
    assert in_turn == stream[state["position"] :][: len(in_turn)]


def test_the_state_of_another_stream_is_refused() -> None:
    state = make(sizes=[4, 7], name="a").state_dict()
    make(sizes=[4, 7], name="a").load_state_dict(state)
    with pytest.raises(UserError) as error:
        make(sizes=[4, 8], name="a").load_state_dict(state)
    assert str(error.value).startswith(
        "sizes is [4, 8], but the resumed run has [4, 7]; resume it with the config"
    )
    with pytest.raises(UserError, match="name is b, but the resumed run has a"):
        make(sizes=[4, 7], name="b").load_state_dict(state)


def wrong_labels(record: dict) -> dict:
    raise UserError(f"label image of {record['file_name']} is wrong")


def end_the_process(record: dict) -> dict:
    os.kill(os.getpid(), signal.SIGKILL)
    return record


def test_errors_of_workers() -> None:
    first = next(TrainingSampler(COUNT).indices(3, 0))
    with pytest.raises(UserError) as error:
        take(make(workers=1, mapper=wrong_labels), 1)
    assert one_line(error.value) == f"label image of {first}.jpg is wrong"
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid.* \d+\)"):
        take(make(workers=1, mapper=end_the_process), 1)


@pytest.fixture
def running() -> Iterator[tuple[Iterator[list[dict]], int]]:
    """Batches, and the process that makes them."""
    before = set(multiprocessing.active_children())
    batches = iter(make(workers=1))
    next(batches)
    [worker] = set(multiprocessing.active_children()) - before
    yield batches, worker
    batches.close()
    worker.join(10)
    assert worker.exitcode == 0


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_workers_outlive_signals_to_all_processes(running, name: str) -> None:
    batches, worker = running
    subprocess.run(["sh", "-c", f"kill -{name} {worker.pid}"], check=True)
    assert list(islice(batches, 20)) == take(make(), 21)[1:]
    assert worker.is_alive()


def test_workers_exit_when_their_parent_says_so(running) -> None:
    _, worker = running
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
