"""The data sets that an experiment generates for itself."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager

from ddep.data.datasets import data_sets_below
from ddep.data.datasets.moving_shapes import generate_moving_shapes
from ddep.data.datasets.shapes import NO_SHIFT, generate_shapes
from ddep.errors import UserError, one_line
from ddep.experiments.command import data_root
from ddep.experiments.experiment import Experiment
from ddep.output_files import write_json


def generate_data(experiment: Experiment) -> None:
    """Generate the experiment's data sets below its folder, unless they are there already.

    Raises:
        UserError: a number of images or videos that is impossible.
    """
    if experiment.generated is None:
        return
    root = data_root(experiment)
    made = root / "shapes.json"
    if made.exists() and json.loads(made.read_text()) == experiment.generated:
        return
    made.unlink(missing_ok=True)
    key = "shapes"
    try:
        for shift in (NO_SHIFT, *experiment.shifts) if experiment.shapes is not None else ():
            generate_shapes(root / "shapes", **experiment.shapes, shift=shift)
        key = "moving_shapes"
        if experiment.moving_shapes is not None:
            generate_moving_shapes(root / "moving_shapes", **experiment.moving_shapes)
    except UserError as error:
        raise UserError(f"{experiment.file}: data.{key}: {one_line(error)}") from error
    write_json(str(made), experiment.generated)


def data_sets_of(experiment: Experiment) -> AbstractContextManager[None]:
    """Inside, the names of data sets mean the experiment's, in this process."""
    return data_sets_below(None if experiment.generated is None else data_root(experiment))
