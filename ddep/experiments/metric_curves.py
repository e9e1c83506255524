"""Draws the metrics of runs, from their metrics.json files, as curves in one picture."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from operator import itemgetter
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddep.errors import UserError
from ddep.files import atomic_write

logger = logging.getLogger(__name__)

# The metrics drawn by default, and the titles of their panels.
METRICS = {
    "total_loss": "total loss",
    "noise_mse": "noise MSE",
    "psnr_denoised": "PSNR of denoised images (dB)",
    "mIoU": "mIoU",
    "PQ": "PQ",
    "AP": "AP of masks",
}
_TASKS = ("denoising", "sem_seg", "panoptic_seg", "segm")
_COLUMNS = 3


@dataclass
class Curve:
    """One metric of one run, by ascending iteration."""

    label: str
    iterations: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


def plot_metrics(runs: Sequence[str], output: str, metrics: Sequence[str] = ()) -> None:
    """Draw a panel for each metric, with a curve for each run, and for each data set if several.

    Args:
        runs: output folders, or metrics.json files.
        output: the picture to write; its ending gives the format (.png, .pdf, .svg).
        metrics: names as in metrics.json, or their last parts, such as loss_mask; by default
            those of ``METRICS`` that the runs have.

    Raises:
        UserError: a run without numbers, a metric that no run has, a file that cannot be written.
    """
    labels = _short_names(runs)
    numbers = {label: _read(run) for label, run in zip(labels, runs, strict=True)}
    panels = {metric: _curves(metric, numbers) for metric in metrics or METRICS}
    for metric in metrics:
        if not panels[metric]:
            known = sorted({name for values in numbers.values() for name in values})
            raise UserError(f"no run has the metric {metric}; expected one of {', '.join(known)}")
    panels = {metric: curves for metric, curves in panels.items() if curves}
    if not panels:
        raise UserError(
            f"{', '.join(runs)}: no numbers yet of {', '.join(METRICS)}; wait, or choose other "
            "metrics with --metrics"
        )
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5 * columns, 3.6 * rows), layout="constrained")
    for index, (metric, curves) in enumerate(panels.items(), start=1):
        _draw(figure.add_subplot(rows, columns, index), METRICS.get(metric, metric), curves)
    picture = BytesIO()
    try:
        figure.savefig(picture, format=os.path.splitext(output)[1][1:] or "png", dpi=120)
    except ValueError as error:
        raise UserError(f"--output {output}: {error}") from error
    with atomic_write(output) as file:
        file.write(picture.getvalue())


def _short_names(runs: Sequence[str]) -> list[str]:
    """A different name for each run: the last parts of its folder's path."""
    folders = [Path(run) if Path(run).is_dir() else Path(run).parent for run in runs]
    parts = [folder.absolute().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"a run is named twice: {', '.join(runs)}")


def _read(run: str) -> dict[str, dict[int, float]]:
    """Metric -> iteration -> value. If a resumed run repeated an iteration, its value counts."""
    path = os.path.join(run, "metrics.json") if os.path.isdir(run) else run
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "no text"
        raise UserError(
            f"{path} cannot be read: {cause}; name the output folder of a run"
        ) from error
    found: dict[str, dict[int, float]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            iteration = values.pop("iteration")
        except (ValueError, KeyError, AttributeError, TypeError):
            # A killed run may have written half a line.
            logger.warning(f"{path}, line {number} is damaged: left out")
            continue
        for name, value in values.items():
            found.setdefault(name, {})[iteration] = value
    if not found:
        raise UserError(f"{path} has no numbers yet")
    return found


def _curves(metric: str, numbers: dict[str, dict[str, dict[int, float]]]) -> list[Curve]:
    return [
        Curve(" ".join([label, *extra]), sorted(points), [points[i] for i in sorted(points)])
        for label, values in numbers.items()
        for extra, points in sorted(_named(metric, values), key=itemgetter(0))
    ]


def _named(
    metric: str, values: dict[str, dict[int, float]]
) -> Iterator[tuple[list[str], dict[int, float]]]:
    """The numbers called ``metric`` or .../metric, each with the names of data set and average."""
    for name, points in values.items():
        if name == metric or name.endswith(f"/{metric}"):
            yield [part for part in name.split("/")[:-1] if part not in _TASKS], points


def _draw(axes: Axes, title: str, curves: Sequence[Curve]) -> None:
    for curve in curves:
        marker = "o" if len(curve.values) < 30 else None
        axes.plot(curve.iterations, curve.values, label=curve.label, marker=marker, markersize=3)
    axes.set_title(title)
    axes.set_xlabel("iteration")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
