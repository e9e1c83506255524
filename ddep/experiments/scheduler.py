"""Does the runs, several at a time, each when those that it needs have ended."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ddep.errors import Stopped, UserError
from ddep.experiments.child_process import ChildProcess
from ddep.experiments.command import command_of, environment_of
from ddep.experiments.devices import Gpus
from ddep.experiments.outcomes import Outcomes
from ddep.experiments.plan import Run
from ddep.experiments.progress import Progress, format_time
from ddep.experiments.run_record import RunRecord, read_metrics, read_record
from ddep.recorded_signals import recorded_signals

OUTPUT = "output.txt"  # in a run's folder: all that its command prints
_PERIOD = 0.1  # seconds between two looks at the children
_INTERPRETER = (sys.executable,)  # comes before train_net.py and its arguments


@dataclass(frozen=True)
class _Running:
    child: ChildProcess
    record: RunRecord  # as it was when it started
    gpus: Sequence[str]


class Scheduler:
    """Does what is left of an experiment.

    Args:
        outcomes: with the runs that have ended already; gets the others.
        jobs: runs at a time.
        gpus: for runs that want some.
        rerun_changed: whether runs that were started with other settings are removed first; else
            they fail.

    Raises:
        UserError: a run wants more GPUs than there are.
    """

    def __init__(
        self,
        outcomes: Outcomes,
        jobs: int,
        gpus: Gpus,
        *,
        rerun_changed: bool = False,
    ) -> None:
        self._outcomes = outcomes
        self._experiment = outcomes.experiment
        self._jobs = jobs
        self._gpus = gpus
        self._rerun_changed = rerun_changed
        self._progress = Progress(outcomes, jobs)
        self._running: dict[str, _Running] = {}
        for run in outcomes.runs.values():
            if self._wants_gpus(run):
                gpus.give_back(gpus.take(run.num_gpus))

    def run(self, lock: int) -> None:
        """Do all runs that can be done; failures are kept in the outcomes.

        Args:
            lock: descriptor that the runs inherit, see :func:`ddep.experiments.lock.locked`.

        Raises:
            Stopped: SIGINT or SIGTERM came; the runs have ended.
            UserError: a file cannot be written.
        """
        waiting = _important_first(self._outcomes)
        with recorded_signals() as signals:
            try:
                self._work(waiting, lock, signals)
            except BaseException:
                self._signal(signal.SIGKILL)
                raise
        self._progress.clear()
        if signals:
            raise Stopped(
                f"stopped by {signal.Signals(signals[0]).name}, {len(self._outcomes.done)} of "
                f"{len(self._outcomes.runs)} runs are done; the same command goes on from there",
                signals[0],
            )

    def _work(self, waiting: list[Run], lock: int, signals: list[int]) -> None:
        """Start and collect runs until all have ended, or until those that run were stopped."""
        handled = 0
        while waiting or self._running:
            for name in list(self._running):
                self._collect(name, stopping=bool(signals))
            if not signals:
                self._start_some(waiting, lock)
            elif not self._running:
                return
            elif len(signals) > handled:
                self._stop(signals, kill=handled > 0)
                handled = len(signals)
            self._progress.show(self._times())
            time.sleep(_PERIOD)

    def _stop(self, signals: Sequence[int], *, kill: bool) -> None:
        self._signal(signal.SIGKILL if kill else signals[0])
        names = ", ".join(self._running)
        what = "killing" if kill else "a second signal kills; waiting until they have saved:"
        self._progress.say(f"{signal.Signals(signals[-1]).name}: {what} {names}")

    def _signal(self, number: int) -> None:
        for running in self._running.values():
            running.child.signal(number)

    def _start_some(self, waiting: list[Run], lock: int) -> None:
        for run in list(waiting):
            if reason := self._outcomes.obstacle(run):
                self._outcomes.skipped[run.name] = reason
                self._progress.say(f"skipped {run.name}: {reason}")
                waiting.remove(run)
            elif len(self._running) < self._jobs and self._outcomes.is_ready(run):
                waiting.remove(run)
                self._start(run, lock)

    def _start(self, run: Run, lock: int) -> None:
        folder = self._experiment.output / run.name
        record = read_record(folder)
        differs = record and self._outcomes.changed(run, record)
        if differs and not self._rerun_changed:
            self._fail(run, f"it was started with other settings: {differs}; --rerun-changed helps")
            return
        if differs:
            shutil.rmtree(folder)
            record = None
        elif record and self._outcomes.is_complete(run, record):
            self._outcomes.done[run.name] = record
            return
        command = command_of(self._experiment, run, self._outcomes.chosen(run))
        if record:  # continue, if there is a checkpoint
            command.insert(1, "--resume")
        folder.mkdir(parents=True, exist_ok=True)
        on_gpu = self._wants_gpus(run)
        record = record or RunRecord(self._outcomes.settings(run), on_gpu=on_gpu)
        record.write(folder)
        gpus = self._gpus.take(run.num_gpus) if on_gpu else []
        environment = environment_of(self._experiment)
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        child = ChildProcess(
            [*_INTERPRETER, *command], folder / OUTPUT, environment, keep_open=(lock,)
        )
        self._running[run.name] = _Running(child, record, gpus)

    def _wants_gpus(self, run: Run) -> bool:
        return run.on_gpu and len(self._gpus) > 0

    def _collect(self, name: str, *, stopping: bool) -> None:
        """Record the end of a run, if it has come."""
        running, run = self._running[name], self._outcomes.runs[name]
        status = running.child.status()
        if status is None:
            return
        del self._running[name]
        self._gpus.give_back(running.gpus)
        folder = self._experiment.output / name
        seconds = running.child.seconds()
        record = replace(
            running.record,
            seconds=running.record.seconds + seconds,
            processor_hours=running.record.processor_hours + seconds * self._processors(run) / 3600,
        )
        if status:
            record.write(folder)
            if not stopping:
                self._fail(run, _explain(status, folder / OUTPUT))
            return
        try:
            metrics = {} if run.pseudo_labels_of else read_metrics(folder)
            record = replace(record, metrics=metrics)
        except UserError as error:
            self._fail(run, str(error))
            return
        record.write(folder)
        if not self._outcomes.is_complete(run, record):
            found = ", ".join(record.metrics)
            self._fail(run, f"it has no finite result {self._experiment.metric}, but {found}")
            return
        if not self._experiment.keep_weights and run.cell and not self._is_drawn(run):
            for checkpoint in folder.glob("*.pth"):
                checkpoint.unlink()
        self._outcomes.done[name] = record
        found = f", {self._experiment.metric} {self._outcomes.metric(name):.2f}" if run.cell else ""
        state = self._progress.line(self._times())
        self._progress.say(f"done {name}{found}, in {format_time(seconds)}; {state}")

    def _is_drawn(self, run: Run) -> bool:
        """Whether the report draws predictions of the run: those of the first cells."""
        experiment = self._experiment
        first = experiment.labels[0].text, experiment.seeds[0]
        return not run.is_trial and (run.cell.labels, run.cell.seed) == first

    def _times(self) -> dict[str, float]:
        """The seconds that each running run has taken."""
        return {name: running.child.seconds() for name, running in self._running.items()}

    def _processors(self, run: Run) -> float:
        """Cores, or GPUs, that a run uses; of GPUs that runs share, a part."""
        if not self._wants_gpus(run):
            return run.num_gpus * self._experiment.threads
        return run.num_gpus * min(1.0, len(self._gpus) / (self._jobs * run.num_gpus))

    def _fail(self, run: Run, reason: str) -> None:
        self._outcomes.failed[run.name] = reason
        self._progress.say(f"failed {run.name}: {reason}")


def _important_first(outcomes: Outcomes) -> list[Run]:
    """The runs that are left, those first that most others wait for."""
    waiting: Counter[str] = Counter()
    for run in reversed(outcomes.runs.values()):
        for need in run.needs:
            waiting[need] += 1 + waiting[run.name]
    left = [run for name, run in outcomes.runs.items() if name not in outcomes.done]
    return sorted(left, key=lambda run: -waiting[run.name])


def _explain(status: int, output: Path) -> str:
    """Why a run failed: the last line that it printed, and how it ended."""
    lines = output.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
    end = f"status {status}" if status > 0 else f"ended by {signal.Signals(-status).name}"
    return f"{last} ({end}, see {output})"
