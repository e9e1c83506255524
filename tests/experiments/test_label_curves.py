"""The picture shows the means, intervals and seeds of the results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from ddep.experiments.experiment import Experiment
from ddep.experiments.label_curves import draw_label_curves
from ddep.experiments.plan import Cell
from ddep.experiments.results import Results, Row
from ddep.experiments.run_record import RunRecord
from tests.experiments.small_experiment import small_experiment


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[Any]]]:
    """The arguments of matplotlib's methods that draw."""
    calls: dict[str, list[Any]] = {"errorbar": [], "scatter": []}

    def spied(name: str, method: Any) -> Any:
        def call(axes: Axes, *arguments: Any, **options: Any) -> Any:
            calls[name].append((arguments, options))
            return method(axes, *arguments, **options)

        return call

    for name in calls:
        monkeypatch.setattr(Axes, name, spied(name, getattr(Axes, name)))
    yield calls


def results_of(experiment: Experiment, values: dict[tuple[str, str], list[float]]) -> Results:
    rows = [
        Row(None, Cell(labels, start, seed), int(labels), {}, value, RunRecord({}), None)
        for (labels, start), of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]
    return Results(experiment, rows, {})


def test_means_intervals_and_seeds_are_drawn(tmp_path: Path, drawn: dict[str, list[Any]]) -> None:
    experiment = small_experiment(tmp_path, labels=[100, 4])
    values = {
        ("100", "random"): [3.0, 5.0],
        ("4", "random"): [1.0, 2.0],
        ("4", "denoised decoder"): [2.0],
    }
    path = tmp_path / "curves.png"
    draw_label_curves(results_of(experiment, values), path)
    assert path.stat().st_size > 1000
    (random, decoder) = drawn["errorbar"]
    (x, y, (below, above)), options = random
    assert options["label"] == "random"
    assert list(y) == [1.5, 4.0]  # by the number of images
    assert x == pytest.approx([4, 100], rel=0.1)
    half = 12.706 * np.array([0.5, 1.0])  # Student's t with one degree of freedom
    assert below == pytest.approx(half, rel=1e-4)
    assert above == pytest.approx(half, rel=1e-4)
    (_, y, (below, above)), options = decoder
    assert (list(y), list(below), list(above)) == ([2.0], [0.0], [0.0])
    assert options["color"] != random[1]["color"]
    assert [list(points[1]) for points, _ in drawn["scatter"]] == [[3.0, 5.0], [1.0, 2.0], [2.0]]


def test_no_results_no_picture(tmp_path: Path) -> None:
    experiment = replace(small_experiment(tmp_path), output=tmp_path)
    draw_label_curves(results_of(experiment, {}), tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
