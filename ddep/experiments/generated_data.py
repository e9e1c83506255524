"""The data sets that an experiment generates for itself."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager

from ddep.data.datasets import data_sets_below
from ddep.data.datasets.shapes import NO_SHIFT, generate_shapes
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
    if made.exists() and json.loads(made.read_text()) == experiment.generated:
        return
    made.unlink(missing_ok=True)
    try:
        for shift in (NO_SHIFT, *experiment.shifts):
            generate_shapes(root / "shapes", **experiment.shapes, shift=shift)
    except UserError as error:
        raise UserError(f"{experiment.file}: data.shapes: {one_line(error)}") from error
    write_json(str(made), experiment.generated)


def data_sets_of(experiment: Experiment) -> AbstractContextManager[None]:
    """Inside, the names of data sets mean the experiment's, in this process."""
    return data_sets_below(None if experiment.shapes is None else data_root(experiment))
