"""What has become of the runs, and what follows for those that need them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ddep.errors import UserError
from ddep.experiments.experiment import Experiment, Options
from ddep.experiments.plan import Run, Trial
from ddep.experiments.run_record import RunRecord, read_record, settings_of


class Outcomes:
    """Results of the runs that have ended, those of earlier calls included.

    Args:
        experiment: what is run.
        runs: all runs by name, each after those that it needs.

    Attributes:
        done: records of the runs that ended well.
        failed: why others did not.
        skipped: why others could not start: a run that they need failed.
        pending: runs that are left out, because only those that are done count.
    """

    def __init__(self, experiment: Experiment, runs: Mapping[str, Run]) -> None:
        self.experiment = experiment
        self.runs = runs
        self.done: dict[str, RunRecord] = {}
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.pending: set[str] = set()
        self._settings = cache(self._settings_of)

    def load(self, only_done: bool = False) -> dict[str, str]:
        """Take over the runs that earlier calls have finished.

        Args:
            only_done: whether others will not be done; they are ``pending`` then.

        Returns:
            By name, the runs that were started with other settings, and what differs.

        Raises:
            UserError: a record is damaged.
        """
        changed = {}
        for name, run in self.runs.items():
            if (record := read_record(self.experiment.output / name)) and self.is_settled(run):
                if differs := self.changed(run, record):
                    changed[name] = differs
                elif self.is_complete(run, record):
                    self.done[name] = record
            if only_done and name not in self.done:
                self.pending.add(name)
        return changed

    def is_complete(self, run: Run, record: RunRecord) -> bool:
        """Whether a record has the results that are needed of a run."""
        if record.metrics is None:
            return False
        return run.cell is None or self.experiment.metric in record.metrics

    def changed(self, run: Run, record: RunRecord) -> str:
        """What differs between a run's settings now and those of its record; often nothing."""
        return record.differs(self.settings(run))

    def is_settled(self, run: Run) -> bool:
        """Whether the trials that a run takes its settings from have ended."""
        return all(self._has_ended(name) for trial in run.trials for name in trial.runs)

    def is_ready(self, run: Run) -> bool:
        """Whether a run can start, if it has not."""
        return self.is_settled(run) and self.done.keys() >= set(run.sources.values())

    def obstacle(self, run: Run) -> str:
        """Why a run can never start, or an empty string."""
        for name in run.sources.values():
            if name in self.failed or name in self.skipped:
                what = "weights" if name == run.weights else "pseudo-labels"
                return f"{name}, whose {what} it needs, failed"
        if run.trials and self.is_settled(run) and best_trial(self, run) is None:
            return "all trials of its search failed"
        return ""

    def chosen(self, run: Run) -> Options:
        """The settings that a run takes from its trials, once they have ended."""
        trial = best_trial(self, run)
        return trial.settings if trial else {}

    def settings(self, run: Run) -> dict[str, Any]:
        """All that decides a run's results, once its trials have ended."""
        return self._settings(run.name)

    def _settings_of(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        sources = {key: self.settings(self.runs[name]) for key, name in run.sources.items()}
        return settings_of(self.experiment, run, self.chosen(run), sources)

    def metric(self, name: str) -> float:
        """The experiment's metric of a run that is done."""
        return self.done[name].metrics[self.experiment.metric]

    def _has_ended(self, name: str) -> bool:
        return any(name in runs for runs in (self.done, self.failed, self.skipped, self.pending))


def best_trial(outcomes: Outcomes, run: Run) -> Trial | None:
    """The trial with the best mean of the metric, the first of equals.

    A trial counts if all its runs are done. None if there is no such trial.
    """
    sign = -1 if outcomes.experiment.smaller_is_better else 1
    complete = [trial for trial in run.trials if outcomes.done.keys() >= set(trial.runs)]
    return max(
        complete,
        key=lambda trial: sign * statistics.fmean(map(outcomes.metric, trial.runs)),
        default=None,
    )


def refuse_changed(output: Path, changed: Mapping[str, str]) -> None:
    """Raise :class:`UserError` if there are runs with other settings."""
    if changed:
        name, differs = next(iter(changed.items()))
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(
            f"{output} has runs of another experiment: {name}{others}, where {differs}; choose "
            "another folder with --output, or remove these runs and do them again with "
            "--rerun-changed"
        )
