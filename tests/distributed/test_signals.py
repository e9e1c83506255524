"""Signals to the process that has started others are forwarded."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import pytest

from ddep.distributed.launch import _forward
from ddep.recorded_signals import recorded_signals


def count_signals(connection: Connection) -> None:
    """Report each SIGTERM."""
    signal.signal(signal.SIGTERM, lambda number, _: connection.send(number))
    connection.send(0)
    while True:
        time.sleep(100)


@pytest.fixture
def child() -> Iterator[tuple[BaseProcess, Connection]]:
    """A child process that survives SIGTERM, and the connection on which it reports it."""
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=count_signals, args=(sender,))
    process.start()
    assert receiver.recv() == 0
    yield process, receiver
    process.kill()
    process.join()


def test_the_first_signal_is_forwarded_and_the_second_kills(
    child: tuple[BaseProcess, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(recorded_signals.__wrapped__.__globals__, "_ONE_SIGNAL", 0)
    process, heard = child
    before = signal.getsignal(signal.SIGTERM)
    with recorded_signals(_forward) as numbers:
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard.recv() == signal.SIGTERM
        assert process.is_alive()
        os.kill(os.getpid(), signal.SIGINT)
        process.join(10)
    assert process.exitcode == -signal.SIGKILL
    assert numbers == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_comes_twice_at_once_is_one(child: tuple[BaseProcess, Connection]) -> None:
    process, heard = child
    with recorded_signals(_forward) as numbers:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard.recv() == signal.SIGTERM
        assert not heard.poll(0.2)
    assert numbers == [signal.SIGTERM]
    assert process.is_alive()


def test_before_there_are_processes_a_signal_ends_the_program() -> None:
    ended = get_context("fork").Process(target=_signal_oneself)
    ended.start()
    ended.join(10)
    assert ended.exitcode == 128 + signal.SIGINT


def _signal_oneself() -> None:
    with recorded_signals(_forward):
        os.kill(os.getpid(), signal.SIGINT)
