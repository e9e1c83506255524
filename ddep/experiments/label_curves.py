"""Draws a metric over the number of labelled images, a line for each start."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ddep.experiments.results import Results
from ddep.files import atomic_write

# Okabe and Ito's colours, which colour-blind people can tell apart, without the palest.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
# Distances at one label count, as parts of the axis: of two starts, of the seeds from their mean.
_BETWEEN_STARTS, _TO_SEEDS = 0.025, 0.008


def draw_label_curves(results: Results, path: Path) -> None:
    """Write the picture: means with 95 % intervals, and every seed as a dot; none of no results.

    Raises:
        UserError: the file cannot be written.
    """
    experiment = results.experiment
    counts = {count.text: results.images(count.text) for count in experiment.labels}
    counts = {text: images for text, images in counts.items() if images}
    if not counts:
        return
    # With one label count, the axis goes from half of it to its double.
    span = max(counts.values()) / min(counts.values()) if len(counts) > 1 else 4.0
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for index, start in enumerate(experiment.starts):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        place = _BETWEEN_STARTS * (index - (len(experiment.starts) - 1) / 2)
        shift, shift_of_seeds = span**place, span ** (place + _TO_SEEDS)
        points: list[tuple[float, ...]] = []
        for labels, images in counts.items():
            if mean := results.mean(labels, start):
                values = list(results.values(labels, start).values())
                low, high = (mean.value if end is None else end for end in (mean.low, mean.high))
                points.append((images * shift, mean.value, mean.value - low, high - mean.value))
                places = [images * shift_of_seeds] * len(values)
                axes.scatter(places, values, s=14, color=colour, alpha=0.6, linewidths=0)
        if points:
            x, y, below, above = np.array(sorted(points)).T
            axes.errorbar(
                x,
                y,
                (below, above),
                color=colour,
                marker=marker,
                markersize=5,
                linestyle="-" if index < len(COLOURS) else "--",
                capsize=4,
                label=start,
            )
    # Wide intervals of few seeds leave the picture, so that the seeds can be told apart.
    values = [row.value for row in results.rows]
    room = max(values) - min(values) or 1.0
    axes.set_ylim(
        max(axes.get_ylim()[0], min(values) - room), min(axes.get_ylim()[1], max(values) + room)
    )
    axes.set_xscale("log")
    axes.set_xticks(list(counts.values()), [_tick(*count) for count in counts.items()])
    axes.xaxis.set_minor_locator(NullLocator())
    if len(counts) == 1:
        (images,) = counts.values()
        axes.set_xlim(images / 2, images * 2)
    axes.set_xlabel("labelled images")
    axes.set_ylabel(experiment.metric_name)
    axes.set_title(experiment.title)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize="small")
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    with atomic_write(path) as file:
        file.write(picture.getvalue())


def _tick(labels: str, images: int) -> str:
    return labels if labels == str(images) else f"{images}\n({labels})"
