"""The results on several data sets, or of several checkpoints, side by side."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from tabulate import tabulate

# task -> metric -> number
Results = Mapping[str, Mapping[str, float]]


class ResultsTable:
    """A row for each metric of a task; a column for each data set (or checkpoint) and the mean.

    Metrics of single classes, which have a hyphen in their name (``IoU-road``), come after the
    others of their task. If a data set has no number for a metric, such as for a class that does
    not occur, the cell is empty, and the mean is that of the other data sets.
    """

    def __init__(self, results: Mapping[str, Results], *, mean: bool = True) -> None:
        """
        Args:
            results: data set -> task -> metric -> number.
            mean: whether there is a column for it.
        """
        self.header = ["task", "metric", *results, *(["mean"] if mean else [])]
        # (task, metric, numbers of the data sets and their mean); NaN for none.
        self.rows: list[tuple[str, str, list[float]]] = []
        for task, metric in _metrics(list(results.values())):
            values = [r.get(task, {}).get(metric, math.nan) for r in results.values()]
            numbers = [*map(float, values), *([_mean(values)] if mean else [])]
            self.rows.append((task, metric, numbers))

    def to_markdown(self) -> str:
        """A Markdown table, with three decimals."""
        rows = [[task, metric, *map(_empty_for_nan, row)] for task, metric, row in self.rows]
        return tabulate(rows, self.header, "pipe", floatfmt=".3f")

    def to_csv(self) -> str:
        """Comma-separated values, with all digits."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.header)
        for task, metric, values in self.rows:
            writer.writerow([task, metric, *map(_empty_for_nan, values)])
        return text.getvalue()


def _metrics(results: Sequence[Results]) -> list[tuple[str, str]]:
    """All pairs (task, metric) in the order of their first occurrence, those of classes last."""
    tasks = dict.fromkeys(task for result in results for task in result)
    pairs = []
    for task in tasks:
        names = dict.fromkeys(name for result in results for name in result.get(task, {}))
        pairs += [(task, name) for name in sorted(names, key=lambda name: "-" in name)]
    return pairs


def _mean(values: Sequence[float]) -> float:
    numbers = [value for value in values if not math.isnan(value)]
    return float(np.mean(numbers)) if numbers else math.nan


def _empty_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
