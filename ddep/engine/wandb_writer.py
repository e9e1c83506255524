"""Weights & Biases as a writer beside TensorBoard."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

from ddep.errors import UserError
from ddep.files import atomic_write

# In OUTPUT_DIR; a resumed run continues under the same id.
_RUN_ID = "wandb_run_id.txt"
# Noisy numbers are medians over this many iterations.
_WINDOW = 20


def check_wandb(cfg: CfgNode) -> None:
    """Raise UserError if WANDB.ENABLED asks for a package that is not there."""
    if not cfg.WANDB.ENABLED:
        return
    try:
        import wandb  # noqa: F401
    except ImportError as error:
        raise UserError(
            "WANDB.ENABLED is True, but the package wandb cannot be imported; pip install wandb, "
            "or set WANDB.ENABLED False"
        ) from error


class WandbWriter(EventWriter):
    """Logs numbers and pictures to a run of Weights & Biases.

    It must write before TensorBoard's writer, which clears the pictures. Without a network,
    WANDB_MODE=offline keeps everything in OUTPUT_DIR, for ``wandb sync``.
    """

    def __init__(self, cfg: CfgNode, *, resume: bool) -> None:
        """
        Args:
            cfg: the whole config, which is stored with the run.
            resume: whether to continue the run whose id is in OUTPUT_DIR.
        """
        import wandb

        self._image = wandb.Image
        id_file = Path(cfg.OUTPUT_DIR, _RUN_ID)
        known = id_file.read_text().strip() if resume and id_file.is_file() else None
        self._run = wandb.init(
            project=cfg.WANDB.PROJECT,
            name=cfg.WANDB.NAME or os.path.basename(os.path.abspath(cfg.OUTPUT_DIR)),
            id=known,
            resume="allow" if known else None,
            dir=cfg.OUTPUT_DIR,
            config=dict(cfg),
        )
        with atomic_write(str(id_file)) as file:
            file.write(self._run.id.encode())
        self._last_write = -1

    def write(self) -> None:
        """Log what is new since the last time."""
        storage = get_event_storage()
        new: dict[int, dict[str, Any]] = {}
        for name, (value, iteration) in storage.latest_with_smoothing_hint(_WINDOW).items():
            if iteration > self._last_write:
                new.setdefault(iteration, {})[name] = value
        for name, picture, iteration in storage._vis_data:
            pixels = np.asarray(picture).transpose(1, 2, 0)
            new.setdefault(iteration, {})[name] = self._image(pixels)
        for iteration in sorted(new):
            self._run.log(new[iteration], step=iteration)
            self._last_write = max(self._last_write, iteration)

    def close(self) -> None:
        """End the run."""
        self._run.finish()
