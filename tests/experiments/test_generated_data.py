"""An experiment generates its data sets below its own folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog

from ddep.errors import UserError
from ddep.experiments.experiment_file import read_experiment
from ddep.experiments.generated_data import data_sets_of, generate_data
from tests.experiments.test_experiment_file import write_experiment


def test_moving_shapes_are_generated_once(tmp_path: Path) -> None:
    data = {"moving_shapes": {"train": 1, "val": 1, "frames": 2, "size": 48}}
    path = write_experiment(tmp_path, data=data)
    experiment = read_experiment(path, output=tmp_path / "output")
    generate_data(experiment)
    with data_sets_of(experiment):
        [video] = DatasetCatalog.get("moving_shapes_val")
    assert len(video["file_names"]) == 2
    first = Path(video["file_name"])
    assert first.is_relative_to(experiment.output)
    assert not (experiment.output / "datasets" / "shapes").exists()
    before = first.stat().st_mtime_ns
    generate_data(experiment)
    assert first.stat().st_mtime_ns == before


def test_impossible_numbers_name_the_data_set(tmp_path: Path) -> None:
    path = write_experiment(tmp_path, data={"moving_shapes": {"train": 0}})
    with pytest.raises(UserError, match=r"data.moving_shapes: --train is 0; expected at least 1"):
        generate_data(read_experiment(path, output=tmp_path))
