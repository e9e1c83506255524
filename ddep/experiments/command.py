"""The commands of runs, for this machine and for readers."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path

from ddep.data.datasets import dataset_root
from ddep.experiments.experiment import Experiment, Options
from ddep.experiments.plan import Run, words_of
from ddep.files import atomic_write

FILE = "commands.sh"
TRAIN_NET = Path(__file__).parents[2] / "train_net.py"
PSEUDO_LABELS = Path(__file__).parents[2] / "tools" / "pseudo-labels.py"
# In the folder of a run: what another one takes by this key.
_FILES = {"MODEL.WEIGHTS": "model_final.pth", "MODEL.ADAPTATION.PSEUDO_LABELS": "pseudo_labels"}


def command_of(experiment: Experiment, run: Run, chosen: Options) -> list[str]:
    """The words of a run's command after ``python``.

    Args:
        experiment: the run's.
        run: the run.
        chosen: the settings that it takes from its trials.
    """
    options = {**run.options, **chosen}
    for key, source in run.sources.items():
        options[key] = str(experiment.output / source / _FILES[key])
    if run.pseudo_labels_of:
        words = [_as_typed(PSEUDO_LABELS), "--config-file", run.config, "--dataset"]
        labels = experiment.output / run.name / _FILES["MODEL.ADAPTATION.PSEUDO_LABELS"]
        return [*words, *run.pseudo_labels_of, "--output", str(labels), *words_of(options)]
    words = [_as_typed(TRAIN_NET), "--config-file", run.config]
    if run.num_gpus > 1:
        words += ["--num-gpus", str(run.num_gpus)]
    words += ["OUTPUT_DIR", str(experiment.output / run.name)]
    return words + words_of(options)


def environment_of(experiment: Experiment) -> dict[str, str]:
    """The environment variables that the results depend on."""
    return {
        "DETECTRON2_DATASETS": str(data_root(experiment)),
        "OMP_NUM_THREADS": str(experiment.threads),
    }


def data_root(experiment: Experiment) -> Path:
    """The folder that holds the experiment's data sets."""
    if experiment.generated is None:
        return dataset_root()
    return experiment.output / "datasets"


def write_commands(experiment: Experiment, runs: Iterable[tuple[Run, Options]]) -> None:
    """Write ``commands.sh``: every command on a line of its own, in order.

    Args:
        experiment: whose folder the file goes to.
        runs: with the settings that each takes from its trials.
    """
    lines = [
        "# Each command can be run alone, once the run whose weights it takes has ended.",
        f"cd {shlex.quote(os.getcwd())}",
        *(shown_command(experiment, run, chosen) for run, chosen in runs),
    ]
    with atomic_write(experiment.output / FILE) as file:
        file.write(("\n".join(lines) + "\n").encode())


def shown_command(experiment: Experiment, run: Run, chosen: Options) -> str:
    """A run's command as it is typed in a shell; arguments as in :func:`command_of`."""
    variables = [f"{key}={shlex.quote(value)}" for key, value in environment_of(experiment).items()]
    return " ".join([*variables, shlex.join(["python", *command_of(experiment, run, chosen)])])


def _as_typed(path: Path) -> str:
    """``path`` as it is typed in the working directory."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
