"""How much time is left follows from like runs."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from ddep.experiments.outcomes import Outcomes
from ddep.experiments.plan import plan_runs
from ddep.experiments.progress import Progress, format_time
from ddep.experiments.run_record import RunRecord
from tests.experiments.small_experiment import small_experiment


@pytest.fixture
def outcomes(tmp_path: Path) -> Outcomes:
    """Of an experiment with a pretraining and four fine-tunings, 6 iterations each."""
    experiment = small_experiment(tmp_path, labels=[3])
    return Outcomes(experiment, plan_runs(experiment))


def test_time_that_is_left(outcomes: Outcomes) -> None:
    one, two = Progress(outcomes, jobs=1), Progress(outcomes, jobs=2)
    assert one.remaining({}) is None
    assert "ETA unknown" in one.line({})
    outcomes.done["pretraining/denoising"] = RunRecord({}, seconds=60.0)
    assert one.remaining({}) == 4 * 60  # nothing is known but the pretraining's pace
    outcomes.done["comparison/3/random/seed0"] = RunRecord({}, seconds=10.0)
    assert one.remaining({}) == 3 * 10
    assert two.remaining({}) == 15
    running = {"comparison/3/random/seed1": 4.0}
    assert one.remaining(running) == 26
    outcomes.failed["comparison/3/random/seed1"] = "why"
    assert one.remaining({}) == 20
    assert one.line({}) == "2 of 5 runs done; 1 failed; ETA 0:20"


def test_runs_take_time_in_proportion_to_their_iterations(outcomes: Outcomes) -> None:
    long = "comparison/3/random/seed1"
    outcomes.runs = {**outcomes.runs, long: replace(outcomes.runs[long], iterations=12)}
    outcomes.done["comparison/3/random/seed0"] = RunRecord({}, seconds=10.0)
    outcomes.done["pretraining/denoising"] = RunRecord({}, seconds=60.0)
    assert Progress(outcomes, jobs=1).remaining({}) == 20 + 10 + 10
    # However many jobs: the longest chain of runs that need each other.
    assert Progress(outcomes, jobs=9).remaining({}) == 20
    del outcomes.done["pretraining/denoising"]
    outcomes.done["comparison/3/denoised-decoder/seed0"] = RunRecord({}, seconds=10.0)
    assert Progress(outcomes, jobs=9).remaining({}) == 20  # 10, then 10


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_is_rewritten_on_a_terminal_alone(outcomes: Outcomes) -> None:
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        progress = Progress(outcomes, 1, stream)
        progress.show({})
        progress.show({})
        progress.say("done")
        progress.clear()
    assert file.getvalue() == "done\n"
    written = terminal.getvalue()
    assert written.startswith("\r\033[K0 of 5 runs done; ETA unknown\r\033[Kdone\n")


@pytest.mark.parametrize(("seconds", "text"), [(5.4, "0:05"), (61, "1:01"), (3661, "1:01:01")])
def test_times_are_readable(seconds: float, text: str) -> None:
    assert format_time(seconds) == text
