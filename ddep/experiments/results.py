"""The results of the comparison: a row for each fine-tuning, and the differences of starts."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from detectron2.data import DatasetCatalog

from ddep.data.datasets import register_from_config
from ddep.data.labels import LABELLED_IMAGES
from ddep.experiments.experiment import Experiment, Options
from ddep.experiments.outcomes import Outcomes
from ddep.experiments.plan import Cell, Run
from ddep.experiments.run_record import RunRecord
from ddep.experiments.statistics import Comparison, Mean, compare, holm
from ddep.experiments.training_loss import LossEnd, loss_end
from ddep.files import atomic_write
from ddep.tasks import load_config


@dataclass(frozen=True)
class Row:
    """A fine-tuning that ended well.

    Attributes:
        run: its command.
        cell: what it compares.
        images: labelled images that it trained on.
        settings: those of its trial, or that the search chose for it.
        value: the experiment's metric.
        record: with all metrics and its cost.
        loss: the end of its training.
    """

    run: Run
    cell: Cell
    images: int
    settings: Options
    value: float
    record: RunRecord
    loss: LossEnd | None


@dataclass(frozen=True)
class Results:
    """What the comparison found.

    Attributes:
        experiment: what was asked.
        rows: in the order of the runs.
        comparisons: of each start but the baseline, by label count and start, as far as both have
            results with the same seed.
    """

    experiment: Experiment
    rows: Sequence[Row]
    comparisons: dict[tuple[str, str], Comparison]

    def values(self, labels: str, start: str) -> dict[int, float]:
        """The metric by seed."""
        return {row.cell.seed: row.value for row in self.of(labels, start)}

    def of(self, labels: str, start: str) -> list[Row]:
        """The rows of a label count and a start."""
        return [row for row in self.rows if (row.cell.labels, row.cell.start) == (labels, start)]

    def mean(self, labels: str, start: str) -> Mean | None:
        """The mean of the metric over the seeds; None without results."""
        values = list(self.values(labels, start).values())
        return Mean.of(values) if values else None

    def images(self, labels: str) -> int | None:
        """Labelled images; None without results."""
        return next((row.images for row in self.rows if row.cell.labels == labels), None)


def collect_results(outcomes: Outcomes) -> Results:
    """The results of all fine-tunings of the comparison that are done."""
    experiment = outcomes.experiment
    comparison = [run for run in outcomes.runs.values() if run.cell and not run.is_trial]
    results = Results(experiment, _rows(outcomes, comparison, outcomes.chosen), {})
    return replace(results, comparisons=_compare_all(results))


def search_rows(outcomes: Outcomes) -> list[Row]:
    """The results of all trials of the search that are done, with their settings."""
    settings = {
        name: trial.settings
        for run in outcomes.runs.values()
        for trial in run.trials
        for name in trial.runs
    }
    trials = [run for run in outcomes.runs.values() if run.is_trial]
    return _rows(outcomes, trials, lambda run: settings.get(run.name, {}))


def _rows(
    outcomes: Outcomes, runs: Sequence[Run], settings_of: Callable[[Run], Options]
) -> list[Row]:
    """Rows of those ``runs`` that are done."""
    size_of = cache(lambda name: len(DatasetCatalog.get(name)))
    rows = []
    for run in runs:
        if run.name in outcomes.done:
            folder = outcomes.experiment.output / run.name
            row = Row(
                run=run,
                cell=run.cell,
                images=_labelled_images(folder, size_of),
                settings=settings_of(run),
                value=outcomes.metric(run.name),
                record=outcomes.done[run.name],
                loss=loss_end(folder),
            )
            rows.append(row)
    return rows


def _compare_all(results: Results) -> dict[tuple[str, str], Comparison]:
    experiment = results.experiment
    sign = -1 if experiment.smaller_is_better else 1
    found = {}
    for labels in experiment.labels:
        baseline = results.values(labels.text, experiment.baseline)
        for start in experiment.starts:
            values = results.values(labels.text, start)
            shared = [seed for seed in values if seed in baseline]
            if start != experiment.baseline and shared:
                differences = [sign * (values[seed] - baseline[seed]) for seed in shared]
                found[labels.text, start] = compare(differences)
    tested = [key for key, comparison in found.items() if comparison.t_p is not None]
    adjusted = holm([found[key].t_p for key in tested])
    return found | {
        key: replace(found[key], adjusted_p=p) for key, p in zip(tested, adjusted, strict=True)
    }


def _labelled_images(folder: Path, size_of: Callable[[str], int]) -> int:
    """The number of labelled images that the run in ``folder`` trained on.

    Args:
        folder: the run's.
        size_of: the number of images of a data set.
    """
    try:
        lines = (folder / LABELLED_IMAGES).read_text().splitlines()
    except FileNotFoundError:  # all of them
        cfg = load_config(str(folder / "config.yaml"))
        register_from_config(cfg, keys=())
        return sum(map(size_of, cfg.DATASETS.TRAIN))
    return sum(not line.startswith("[") for line in lines)


def write_csv(experiment: Experiment, rows: Sequence[Row], path: Path) -> None:
    """Write the rows, with all metrics.

    Raises:
        UserError: the file cannot be written.
    """
    others = dict.fromkeys(name for row in rows for name in row.record.metrics)
    others.pop(experiment.metric, None)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["labels", "images", "start", "seed", "settings", experiment.metric, "seconds"]
    writer.writerow([*columns, *others])
    for row in rows:
        numbers = (row.record.metrics.get(name) for name in others)
        settings = json.dumps(row.settings) if row.settings else ""
        cell = row.cell
        known = [cell.labels, row.images, cell.start, cell.seed, settings, row.value]
        writer.writerow([*known, round(row.record.seconds, 1), *numbers])
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
