"""The first signal is recorded; later ones have their usual effect."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from ddep.engine import stop_signals
from ddep.engine.stop_signals import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_recorded_and_a_later_one_has_its_usual_effect(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = []

    def handler(*_: object) -> None:
        came.append(True)

    usual = signal.signal(number, handler)
    try:
        request = StopRequest()
        with request.noticed():
            assert request.signum == 0
            os.kill(os.getpid(), number)
            assert request.signum == number
            # Repeated at once, it is the same request.
            os.kill(os.getpid(), number)
            assert not came
            monkeypatch.setattr(stop_signals, "_ONE_REQUEST", 0.0)
            os.kill(os.getpid(), number)
            assert len(came) == 1
        with StopRequest().noticed():
            assert signal.getsignal(number) is not handler
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, usual)


def test_other_threads_change_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with StopRequest().noticed():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_where_nothing_is_to_be_saved_the_first_signal_ends_the_process(
    caplog: pytest.LogCaptureFixture,
) -> None:
    request = StopRequest()
    with request.noticed(), pytest.raises(SystemExit) as end, request.at_once():
        os.kill(os.getpid(), signal.SIGTERM)
    assert end.value.code == 143
    assert "stopped by SIGTERM in an evaluation; --resume continues " in caplog.text
    # One that came before counts too.
    request = StopRequest()
    with request.noticed():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(SystemExit) as end, request.at_once():
            pytest.fail("not reached")
    assert end.value.code == 130
