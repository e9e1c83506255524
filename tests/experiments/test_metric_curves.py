"""Curves are drawn through the numbers of metrics.json."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from ddep.errors import UserError
from ddep.experiments import metric_curves
from ddep.experiments.metric_curves import plot_metrics


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Panel title -> curve label -> points, of everything that is drawn."""
    found: dict[str, dict[str, list[tuple[int, float]]]] = {}
    draw = metric_curves._draw

    def spy(axes: Axes, *arguments: object) -> None:
        draw(axes, *arguments)
        found[axes.get_title()] = {
            line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.get_lines()
        }

    monkeypatch.setattr(metric_curves, "_draw", spy)
    return found


def write(folder: Path, *lines: dict | str) -> str:
    folder.mkdir(parents=True)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metrics.json").write_text(text)
    return str(folder)


@pytest.mark.slow
def test_runs_and_data_sets_are_curves(tmp_path: Path, drawn: dict) -> None:
    first = write(
        tmp_path / "a" / "run",
        {"iteration": 19, "total_loss": 4.0, "lr": 0.1},
        {"iteration": 39, "total_loss": 3.0, "panoptic_seg/PQ": 10.0, "ema/panoptic_seg/PQ": 11.0},
        # Resumed after iteration 29.
        {"iteration": 39, "total_loss": 3.5},
        {"iteration": 29, "total_loss": 3.8},
    )
    second = write(
        tmp_path / "b" / "run",
        {"iteration": 19, "total_loss": 5.0, "set_1/sem_seg/mIoU": 20.0, "set_2/sem_seg/mIoU": 30},
    )
    output = tmp_path / "curves.png"
    plot_metrics([first, f"{second}/metrics.json"], str(output))
    assert drawn == {
        "total loss": {"a/run": [(19, 4.0), (29, 3.8), (39, 3.5)], "b/run": [(19, 5.0)]},
        "PQ": {"a/run": [(39, 10.0)], "a/run ema": [(39, 11.0)]},
        "mIoU": {"b/run set_1": [(19, 20.0)], "b/run set_2": [(19, 30.0)]},
    }
    picture = np.asarray(Image.open(output).convert("RGB"))
    assert picture.shape[1] == 3 * 600
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_other_metrics_can_be_asked_for(tmp_path: Path, drawn: dict) -> None:
    run = write(tmp_path / "run", {"iteration": 0, "lr": 0.1, "total_loss": 1.0})
    plot_metrics([run], str(tmp_path / "curves.svg"), ["lr"])
    assert drawn == {"lr": {"run": [(0, 0.1)]}}
    with pytest.raises(UserError, match=r"no run has the metric learn; expected one of lr, total_"):
        plot_metrics([run], str(tmp_path / "curves.svg"), ["learn"])


def test_half_a_line_is_left_out(
    tmp_path: Path, drawn: dict, caplog: pytest.LogCaptureFixture
) -> None:
    run = write(tmp_path / "run", {"iteration": 0, "total_loss": 1.0}, '{"iteration": 1, "tot')
    with caplog.at_level(logging.WARNING, logger="ddep.experiments.metric_curves"):
        plot_metrics([run], str(tmp_path / "curves.png"))
    assert drawn == {"total loss": {"run": [(0, 1.0)]}}
    assert "metrics.json, line 2 is damaged: left out" in caplog.text


def test_mistakes_are_named(tmp_path: Path) -> None:
    run = write(tmp_path / "run", {"iteration": 0, "total_loss": 1.0})
    empty = write(tmp_path / "empty")
    for runs, output, message in [
        ([str(tmp_path / "absent")], "a.png", "absent cannot be read: No such file"),
        ([empty], "a.png", "metrics.json has no numbers yet"),
        ([run, run], "a.png", "a run is named twice"),
        ([run], "a.txt", r"--output .*a\.txt: Format 'txt' is not supported"),
        ([run], "absent/a.png", r"absent/a\.png cannot be written: No such file"),
    ]:
        with pytest.raises(UserError, match=message):
            plot_metrics(runs, str(tmp_path / output))
