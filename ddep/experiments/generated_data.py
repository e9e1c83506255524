"""The data sets that an experiment generates for itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ddep.data.datasets import dataset_root, register_all
from ddep.data.datasets.shapes import generate_shapes
from ddep.errors import UserError, one_line
from ddep.experiments.command import data_root
from ddep.experiments.experiment import Experiment
from ddep.output_files import write_json


def generate_data(experiment: Experiment) -> None:
    """Generate the experiment's data sets below its folder, unless they are there already.

    Raises:
        UserError: a number of images that is impossible.
    """
    if experiment.shapes is None:
        return
    root = data_root(experiment)
    made = root / "shapes.json"
    if made.exists() and json.loads(made.read_text()) == experiment.shapes:
        return
    made.unlink(missing_ok=True)
    try:
        generate_shapes(root / "shapes", **experiment.shapes)
    except UserError as error:
        raise UserError(f"{experiment.file}: data.shapes: {one_line(error)}") from error
    write_json(str(made), dict(experiment.shapes))


@contextmanager
def data_sets_of(experiment: Experiment) -> Iterator[None]:
    """Inside, the names of data sets mean the experiment's, in this process."""
    if experiment.shapes is None:
        yield
        return
    usual = os.environ.get("DETECTRON2_DATASETS")
    os.environ["DETECTRON2_DATASETS"] = str(data_root(experiment))
    register_all(dataset_root())
    try:
        yield
    finally:
        if usual is None:
            del os.environ["DETECTRON2_DATASETS"]
        else:
            os.environ["DETECTRON2_DATASETS"] = usual
        register_all(dataset_root())
