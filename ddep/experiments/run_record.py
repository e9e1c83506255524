"""What is known of a run besides what ``train_net.py`` writes: ``run.json`` in its folder.

It is written when the run starts, with its settings, and again when it has ended well, with its
results. A run whose settings are no longer those of the experiment is never taken for a result.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ddep.errors import UserError
from ddep.experiments.experiment import Experiment, Options
from ddep.experiments.plan import Run, keys_of_file
from ddep.output_files import write_json

_FILE = "run.json"


@dataclass(frozen=True)
class RunRecord:
    """What ``run.json`` holds.

    Attributes:
        settings: see :func:`settings_of`.
        seconds: of all attempts that ended by themselves.
        processor_hours: time multiplied by cores, or by GPUs if it ran on them; a GPU that runs
            share counts in parts.
        on_gpu: whether it ran on GPUs.
        metrics: all results, by path, such as ``sem_seg/mIoU``; None if it has not ended well.
    """

    settings: Mapping[str, Any]
    seconds: float = 0.0
    processor_hours: float = 0.0
    on_gpu: bool = False
    metrics: Mapping[str, float] | None = None

    def write(self, folder: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(str(folder / _FILE), asdict(self))

    def differs(self, settings: Mapping[str, Any]) -> str:
        """What differs from other settings, or an empty string."""
        keys = [
            key
            for key in {**settings, **self.settings}
            if settings.get(key) != self.settings.get(key)
        ]
        return ", ".join(
            f"{key} was {_shown(self.settings, key)} and is {_shown(settings, key)} now"
            for key in keys
        )


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return repr(settings[key]) if key in settings else "not set"


def read_record(folder: Path) -> RunRecord | None:
    """The record of the run in ``folder``, None if it has not been started.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / _FILE
    try:
        return RunRecord(**json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read; remove {folder} to run it again") from error


def settings_of(
    experiment: Experiment, run: Run, chosen: Options, sources: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """All that decides the results of a run, wherever its files are.

    Args:
        experiment: says what all runs have in common.
        run: the run.
        chosen: the settings that it takes from its trials.
        sources: settings of the runs whose files it takes, by config key as in ``run.sources``.
    """
    settings = {**keys_of_file(run.config), **run.options, **chosen}
    settings.pop("OUTPUT_DIR", None)
    for key, source in sources.items():
        digest = hashlib.sha256(json.dumps(source, sort_keys=True).encode()).hexdigest()
        settings[key] = f"{run.sources[key]} with the settings {digest[:16]}"
    if run.pseudo_labels_of:
        settings["pseudo-labels of"] = list(run.pseudo_labels_of)
    settings |= {"threads": experiment.threads, "num_gpus": run.num_gpus}
    settings["data"] = experiment.generated
    return json.loads(json.dumps(settings, default=str))


def read_metrics(folder: Path) -> dict[str, float]:
    """All numbers in ``inference/results.json`` of a run, by path, such as ``sem_seg/mIoU``.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    path = folder / "inference" / "results.json"
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: did the config evaluate anything?") from error
    return dict(_numbers(results))


def _numbers(results: Mapping[str, Any], parents: str = "") -> list[tuple[str, float]]:
    found = []
    for name, value in results.items():
        if isinstance(value, Mapping):
            found += _numbers(value, f"{parents}{name}/")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            found.append((f"{parents}{name}", value))
    return found
