"""One line for the progress of all runs, and a line for each that ends."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from ddep.experiments.outcomes import Outcomes
from ddep.experiments.plan import Run

_PERIOD = 1.0  # seconds between two states of the line


class Progress:
    """Prints them: the line only on a terminal, where it is rewritten in place.

    Args:
        outcomes: what has become of the runs.
        jobs: runs at a time.
        stream: to print to; stdout by default.
    """

    def __init__(self, outcomes: Outcomes, jobs: int, stream: TextIO | None = None) -> None:
        self._outcomes = outcomes
        self._jobs = jobs
        self._stream = stream or sys.stdout
        self._shown = float("-inf")

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(line, file=self._stream, flush=True)

    def clear(self) -> None:
        """Remove the line."""
        if self._stream.isatty():
            print("\r\033[K", end="", file=self._stream, flush=True)
            self._shown = float("-inf")

    def show(self, running: Mapping[str, float]) -> None:
        """Rewrite the line, at most once a second.

        Args:
            running: the names of the runs that run, and for how many seconds they have.
        """
        if self._stream.isatty() and time.monotonic() - self._shown > _PERIOD:
            line = self.line(running)[: shutil.get_terminal_size().columns - 1]
            print(f"\r\033[K{line}", end="", file=self._stream, flush=True)
            self._shown = time.monotonic()

    def line(self, running: Mapping[str, float]) -> str:
        """Runs that are done, failed and running, and the time that the others will take."""
        outcomes = self._outcomes
        parts = [f"{len(outcomes.done)} of {len(outcomes.runs)} runs done"]
        if failed := len(outcomes.failed) + len(outcomes.skipped):
            parts.append(f"{failed} failed")
        seconds = self.remaining(running)
        parts.append("ETA unknown" if seconds is None else f"ETA {format_time(seconds)}")
        if running:
            parts.append(f"running: {', '.join(running)}")
        return "; ".join(parts)

    def remaining(self, running: Mapping[str, float]) -> float | None:
        """The seconds until all runs are done, from those of like runs; None if there are none.

        Runs of the same config take time in proportion to their iterations, and runs of a config
        that none has ended with are as fast as all others together.
        """
        outcomes = self._outcomes
        paces: dict[str, tuple[float, float]] = {}
        for name, record in outcomes.done.items():
            run = outcomes.runs[name]
            seconds, iterations = paces.get(run.config, (0.0, 0.0))
            length = outcomes.settings(run).get("SOLVER.MAX_ITER", run.iterations)
            paces[run.config] = seconds + record.seconds, iterations + float(length)
        if not paces:
            return None
        together = tuple(map(sum, zip(*paces.values(), strict=True)))

        def duration(run: Run) -> float:
            seconds, iterations = paces.get(run.config, together)
            return run.iterations * seconds / iterations

        over = outcomes.done.keys() | outcomes.failed.keys() | outcomes.skipped.keys()
        left = {
            name: max(0.0, duration(run) - running.get(name, 0.0))
            for name, run in outcomes.runs.items()
            if name not in over
        }
        # No less than the longest chain of runs that need each other.
        chains: dict[str, float] = {}
        for name, seconds in left.items():
            needed = (chains.get(need, 0.0) for need in outcomes.runs[name].needs)
            chains[name] = seconds + max(needed, default=0.0)
        return max(sum(left.values()) / self._jobs, max(chains.values(), default=0.0))


def format_time(seconds: float) -> str:
    """Hours, minutes and seconds: ``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
