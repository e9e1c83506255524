"""The runs that the page offers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ddep.checkpoint.run_folder import CONFIG, is_run
from ddep.errors import UserError

DEMO = Path("output/demo")


def find_runs(given: Sequence[Path]) -> dict[str, Path]:
    """The runs in some folders, by the names that the page calls them.

    Args:
        given: folders of runs that have a config and a checkpoint, and folders of such folders, at
            any depth.

    Returns:
        The folder of each run. Its name is its path from the folder that holds all, or that folder.

    Raises:
        UserError: a folder does not exist, or there is no run in it.
    """
    runs: list[Path] = []
    for folder in given:
        if not folder.is_dir():
            found = "is a file" if folder.exists() else "does not exist"
            raise UserError(
                f"--model {folder} {found}; expected the folder of a run (OUTPUT_DIR), or a folder "
                "of such folders"
            )
        inside = _runs_in(folder)
        if not inside:
            raise UserError(
                f"--model {folder} has no run in it; expected a folder with {CONFIG} and a "
                "checkpoint, which train_net.py writes"
            )
        runs += inside
    runs = list(dict.fromkeys(run.resolve() for run in runs))
    if len(runs) == 1:
        return {runs[0].name: runs[0]}
    common = os.path.commonpath(run.parent for run in runs)
    return {str(run.relative_to(common)): run for run in runs}


def demo_run(output: Path = DEMO) -> Path:
    """The demonstration's fine-tuned run with the highest panoptic quality.

    Raises:
        UserError: there is none.
    """
    runs = [run for run in _runs_in(output / "comparison") if _quality(run) is not None]
    if not runs:
        raise UserError(
            f"there is no model in {output}: `make demo` trains some in a few minutes, or give the "
            "folder of a run with --model"
        )
    return max(runs, key=lambda run: _quality(run) or 0.0)


def data_folder(run: Path) -> Path | None:
    """The data sets that an experiment generated for its runs, of which this is one; or None."""
    for folder in run.absolute().parents:
        if (folder / "commands.sh").is_file() and (folder / "datasets").is_dir():
            return folder / "datasets"
    return None


def _runs_in(folder: Path) -> list[Path]:
    """The runs in a folder, or the folder itself, sorted."""
    return [config.parent for config in sorted(folder.rglob(CONFIG)) if is_run(config.parent)]


def _quality(run: Path) -> float | None:
    try:
        results = json.loads((run / "inference" / "results.json").read_text())
        return float(results["panoptic_seg"]["PQ"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
