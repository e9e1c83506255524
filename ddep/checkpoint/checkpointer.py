"""Save and load the checkpoints of a training run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import nn

from ddep.checkpoint.checksum import verify_checksum, write_with_checksum
from ddep.checkpoint.fallback import LAST_CHECKPOINT, newest_valid
from ddep.checkpoint.frozen_encoder import KEY, FrozenEncoder, restore_encoder
from ddep.checkpoint.groups import TRANSFERABLE
from ddep.checkpoint.load_report import LoadReport
from ddep.checkpoint.loading import from_model_zoo, load_weights
from ddep.checkpoint.read_checkpoint import local_path, read_checkpoint
from ddep.errors import UserError
from ddep.files import atomic_write, remove_leftovers

logger = logging.getLogger(__name__)

# States that only some runs have, and the config keys that say so.
_OPTIONS = {
    "adaptation": "MODEL.ADAPTATION.METHOD",
    "ema": "SOLVER.EMA.ENABLED",
    "transferred": "SOLVER.TRANSFERRED_MULTIPLIER or SOLVER.NEW_ONLY_ITERS",
    "whitening": "MODEL.ISW",
}


class Checkpointer(DetectionCheckpointer):
    """detectron2's checkpointer, made safe, with a report on every weight.

    Loading executes no code of the file, reports what happened to each weight, and stops if none
    fits. Saving leaves either the old files or the new ones, never half a file.

    Attributes:
        report: the :class:`LoadReport` of the latest :meth:`load`, None before the first.
    """

    report: LoadReport | None = None

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        encoder: str = "",
        saves_encoder: bool = True,
        **more: Any,
    ) -> None:
        """
        Args:
            model: may be wrapped in DistributedDataParallel.
            save_dir: where to save; empty saves nothing.
            encoder: MODEL.BACKBONE.FROZEN_WEIGHTS, the file with the frozen encoder of checkpoints
                that do not hold theirs; empty: where they say that it is.
            saves_encoder: False if the encoder is frozen: then checkpoints leave out what
                :meth:`load` has found of it, and say in which file it is.
            more: as for detectron2's.
        """
        super().__init__(model, save_dir, **more)
        self._encoder_file = encoder
        self._saves_encoder = saves_encoder
        self._encoder: FrozenEncoder | None = None

    def load(
        self,
        path: str,
        checkpointables: list[str] | None = None,
        *,
        transfer: Sequence[str] = TRANSFERABLE,
    ) -> dict[str, Any]:
        """Load a checkpoint.

        Args:
            path: a file or URL; see :func:`ddep.checkpoint.read_checkpoint`. An empty path loads
                nothing.
            checkpointables: names of the objects given to the constructor that are also loaded;
                None takes all. If there are any, training resumes, and the file must fit exactly.
            transfer: groups of weights to load, see :func:`ddep.checkpoint.loading.load_weights`.

        Returns:
            Everything else that the file holds.

        Raises:
            UserError: the file is missing or unreadable, contradicts its checksum, or is not a
                checkpoint of this model; or the frozen encoder that it needs is not found.
        """
        if not path:
            return {}
        local = local_path(path)
        verify_checksum(local)
        checkpoint = read_checkpoint(local)
        names = list(self.checkpointables) if checkpointables is None else checkpointables
        _check_state(checkpoint, names, path)
        encoder = None
        if "backbone" in transfer:
            encoder = restore_encoder(self.model, checkpoint, path, self._encoder_file)
        self._load_weights(checkpoint, path, transfer, resume=bool(names))
        # A run's own whole checkpoint is no place for the encoder: it may be removed later.
        if not self._saves_encoder and (encoder or not names):
            encoder = encoder or path
            encoder = encoder if "://" in encoder else os.path.abspath(encoder)
            self._encoder = FrozenEncoder.of(self.model, encoder, self.report.loaded)
        for name in names:
            try:
                self.checkpointables[name].load_state_dict(checkpoint.pop(name))
            except UserError as error:
                raise UserError(f"{path}: {error}") from error
        return checkpoint

    def absent_parameters(self) -> list[str]:
        """Names of the parameters that the latest :meth:`load` did not find in the right shape."""
        absent = {*self.report.new, *self.report.mismatched}
        return [name for name, _ in self.model.named_parameters() if name in absent]

    def save(self, name: str, *, is_last: bool = True, **kwargs: Any) -> None:
        """Write the model and all checkpointables to ``<save_dir>/<name>.pth``, all or nothing.

        All processes have to call this, because the state of training is gathered from them; the
        main process writes. The checksum goes to ``<name>.pth.sha256``.

        Args:
            name: without extension.
            is_last: whether ``--resume`` will continue from this checkpoint.
            kwargs: more to save, such as the iteration.

        Raises:
            UserError: the disk is full or the folder cannot be written; earlier files are intact.
        """
        if not self.save_dir:
            return
        data = {"model": self.model.state_dict()}
        path = os.path.join(self.save_dir, f"{name}.pth")
        # The file that has the encoder keeps it when it is replaced.
        if self._encoder is not None and self._encoder.path != os.path.abspath(path):
            for encoder_weight in self._encoder.names:
                del data["model"][encoder_weight]
            data[KEY] = self._encoder.entry()
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()}
        if not self.save_to_disk:
            return
        logger.info(f"Saving checkpoint to {path}")
        if os.path.isdir(self.save_dir):
            remove_leftovers(self.save_dir)
        with write_with_checksum(path) as file:
            torch.save(data | kwargs, file)
        if is_last:
            self.tag_last_checkpoint(os.path.basename(path))

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the file that ``--resume`` will load."""
        with atomic_write(os.path.join(self.save_dir, LAST_CHECKPOINT)) as file:
            file.write(last_filename_basename.encode())

    def has_checkpoint(self) -> bool:
        """Whether the main process sees a run to resume; all processes have to call this."""
        return comm.all_gather(super().has_checkpoint())[0]

    def get_checkpoint_file(self) -> str:
        """The file that ``--resume`` loads, empty if there is none.

        It is the file that ``last_checkpoint`` names or, with a warning, the newest valid
        checkpoint; see :func:`ddep.checkpoint.fallback.newest_valid`. The main process looks for
        it; all processes have to call this.

        Raises:
            UserError: no checkpoint is valid.
        """
        path, problem = "", ""
        if comm.is_main_process():
            try:
                path = newest_valid(self.save_dir, list(self.checkpointables))
            except UserError as error:
                problem = str(error)
        path, problem = comm.all_gather((path, problem))[0]
        if problem:
            raise UserError(problem)
        return path

    def _load_weights(
        self, checkpoint: dict[str, Any], path: str, transfer: Sequence[str], *, resume: bool
    ) -> None:
        """Move the weights from ``checkpoint`` into the model."""
        if checkpoint.pop("matching_heuristics", False):
            checkpoint["model"] = from_model_zoo(checkpoint, self.model)
        self.report = load_weights(self.model, checkpoint.pop("model"), path, transfer)
        logger.info(f"Weights in {path}:\n{self.report.table()}")
        # One line per weight: this level goes to log.txt, not to the console.
        logger.debug(f"Each weight in {path} and in the model:\n{self.report.names()}")
        mismatches = list(self.report.mismatches())
        if mismatches:
            logger.warning(
                f"weights of another shape: {len(mismatches)}, all are in log.txt; the first: "
                f"{mismatches[0]}"
            )
            logger.debug("\n".join(["Weights of another shape:", *mismatches]))
        unfit = [*self.report.new, *self.report.mismatched, *self.report.unused]
        if resume and unfit:
            raise UserError(
                f"{path} is of another model ({len(unfit)} weights differ, such as {unfit[0]}); "
                "--resume needs the config that the run was started with"
            )


def _check_state(checkpoint: Mapping[str, Any], names: Sequence[str], path: str) -> None:
    """Raise :class:`UserError` unless ``checkpoint`` has all states called ``names``."""
    absent = [name for name in names if name not in checkpoint]
    if absent and set(absent) <= _OPTIONS.keys():
        raise UserError(
            f"{path} is of a run without {' and '.join(_OPTIONS[name] for name in absent)}; "
            "--resume needs the config that the run was started with"
        )
    if absent:
        raise UserError(
            f"{path} holds weights but no state of a training run ({', '.join(absent)}); to start "
            "from its weights, name it in MODEL.WEIGHTS and leave --resume out"
        )
