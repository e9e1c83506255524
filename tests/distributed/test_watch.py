"""What the launcher does with processes that do not end by themselves."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import pytest

from ddep.distributed.launch import _noted_signals, _watch

Start = Callable[..., BaseProcess]


def begin(ready: Connection, ignored: Sequence[int], function: Callable[..., None], *args) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    ready.send(True)
    function(*args)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a process that calls a function, and waits until it does."""
    context, started = get_context("fork"), []

    def start(
        function: Callable[..., None], *args: object, ignored: Sequence[int] = ()
    ) -> BaseProcess:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=begin, args=(sender, ignored, function, *args))
        process.start()
        started.append(process)
        assert receiver.recv()
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.mark.parametrize("status", [1, 3])
def test_a_process_that_hangs_when_another_fails_is_killed(
    start: Start, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setitem(_watch.__globals__, "_GRACE", 0.5)
    stuck, failed = start(time.sleep, 100, ignored=[signal.SIGTERM]), start(os._exit, status)
    assert _watch([stuck, failed], []) == status
    assert stuck.exitcode == -signal.SIGKILL


def test_nothing_happens_to_the_others_when_one_is_done(start: Start) -> None:
    done, longer = start(os._exit, 0), start(time.sleep, 0.5)
    assert _watch([longer, done], []) == 0
    assert longer.exitcode == 0


def test_one_signal_is_handed_on_and_the_second_kills(start: Start) -> None:
    assert _watch([start(time.sleep, 100)], [signal.SIGINT]) == 128 + signal.SIGINT
    stubborn = start(time.sleep, 100, ignored=[signal.SIGTERM, signal.SIGINT])
    assert _watch([stubborn], [signal.SIGTERM, signal.SIGINT]) == 128 + signal.SIGTERM
    assert stubborn.exitcode == -signal.SIGKILL


def test_time_to_stop_in_is_limited(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_watch.__globals__, "_STOPPING", 0.5)
    assert _watch([start(time.sleep, 100, ignored=[signal.SIGTERM])], [signal.SIGTERM]) == 143


def test_signals_are_noted_and_then_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_watch.__globals__, "_ONE_SIGNAL", 0)
    before = signal.getsignal(signal.SIGTERM)
    with _noted_signals() as numbers:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)
    assert numbers == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_comes_twice_at_once_is_one() -> None:
    with _noted_signals() as numbers:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0)
    assert numbers == [signal.SIGTERM]
