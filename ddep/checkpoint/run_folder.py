"""The files of a training run's folder that describe a trained model."""

from __future__ import annotations

import os
from pathlib import Path

from ddep.checkpoint.fallback import LAST_CHECKPOINT, newest_valid
from ddep.errors import UserError

CONFIG = "config.yaml"
# Where a run without the name of its last checkpoint, such as a copied one, has its weights.
FINAL = "model_final.pth"


def is_run(folder: str | Path) -> bool:
    """Whether a folder has a run's config and a checkpoint, which may be damaged.

    Experiments remove checkpoints, but not the file that names the last one.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        return False
    is_named = (folder / LAST_CHECKPOINT).is_file() and any(folder.glob("*.pth"))
    return is_named or (folder / FINAL).is_file()


def run_config(folder: str | Path) -> str:
    """The config that a run has written.

    Raises:
        UserError: there is none.
    """
    path = os.path.join(folder, CONFIG)
    if not os.path.isfile(path):
        raise UserError(
            f"{folder} has no {CONFIG}; expected the folder of a run (OUTPUT_DIR), or a YAML config"
        )
    return path


def run_weights(folder: str | Path) -> str:
    """The checkpoint of a run: the one that ``last_checkpoint`` names, or model_final.pth.

    If the named one is damaged, it is the newest valid one, with a warning.

    Raises:
        UserError: there is none.
    """
    try:
        path = newest_valid(str(folder), ())
    except UserError as error:
        raise UserError(str(error).rsplit("; ", 1)[0] + "; name another file of weights") from error
    if path:
        return path
    path = os.path.join(folder, FINAL)
    if not os.path.isfile(path):
        raise UserError(
            f"{folder} has neither {LAST_CHECKPOINT} nor {FINAL}: its run wrote no checkpoint "
            "yet; wait for one, or name a file of weights"
        )
    return path
