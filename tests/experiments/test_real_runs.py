"""Real trainings: the same numbers from single commands, side by side, and after a kill."""

from __future__ import annotations

import csv
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddep.experiments.experiment import Experiment
from ddep.experiments.experiment_file import read_experiment
from ddep.experiments.label_efficiency import run_experiment
from ddep.experiments.run_record import read_metrics
from tests.experiments.small_experiment import write_experiment

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def small_rows(experiment: Experiment) -> list[dict[str, str]]:
    """The rows of results.csv without the time."""
    with open(experiment.output / "results.csv") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        del row["seconds"]
    return rows


def test_numbers_depend_neither_on_jobs_nor_on_interruptions(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"labels": [3], "seeds": [0]}
    path = write_experiment(tmp_path, **changes)
    experiment = read_experiment(path)
    report = run_experiment(experiment, jobs=2).read_text()
    expected = small_rows(experiment)
    assert len(expected) == 2
    for picture in ("curves.png", "segmentation.png", "pretraining_denoising.png"):
        assert f"({picture})" in report
        assert (experiment.output / picture).stat().st_size > 1000

    # The last command alone, into another folder.
    folder = "comparison/3/denoised-decoder/seed0"
    command = (experiment.output / "commands.sh").read_text().splitlines()[-1]
    command = command.replace(f"{experiment.output}/{folder}", f"{tmp_path}/alone")
    command = command.replace(" python ", f" {shlex.quote(sys.executable)} ")
    subprocess.run(command, shell=True, check=True, cwd=ROOT, capture_output=True)
    assert read_metrics(tmp_path / "alone") == read_metrics(experiment.output / folder)

    # Killed in the second run, and gone on with one at a time.
    killed = replace(experiment, output=tmp_path / "killed")
    words = [sys.executable, "tools/label-efficiency.py", path, "--output", str(killed.output)]
    program = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)
    second = killed.output / "comparison/3/random/seed0/metrics.json"
    while program.poll() is None and not second.exists():
        time.sleep(0.05)
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    time.sleep(1)
    subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert small_rows(killed) == expected
