"""Choose the checkpoint from which a run continues."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from ddep.checkpoint.checksum import verify_checksum
from ddep.checkpoint.read_checkpoint import local_path, read_checkpoint
from ddep.errors import UserError

logger = logging.getLogger(__name__)

LAST_CHECKPOINT = "last_checkpoint"


def newest_valid(folder: str, state: Sequence[str]) -> str:
    """Find the checkpoint that ``last_checkpoint`` names, or else the newest valid one.

    A checkpoint is valid if it matches the checksum beside it or, without one, if it can be read.
    The newest is the one written last. Problems of newer ones are logged as a warning.

    Args:
        folder: the folder with ``last_checkpoint`` and ``*.pth``.
        state: what a checkpoint must hold besides weights to replace the named one.

    Returns:
        Its path; empty if there is no ``last_checkpoint``.

    Raises:
        UserError: no checkpoint is valid.
    """
    tag = os.path.join(folder, LAST_CHECKPOINT)
    if not os.path.lexists(tag):
        return ""
    named, problems = "", []
    try:
        named = os.path.join(folder, _read_name(tag))
        _check(named)
        return named
    except UserError as error:
        problems.append(f"{tag}: {_finding(error)}" if named else str(error))
    for path in _newest_first(folder):
        if path == named:
            continue
        try:
            _check(path, state)
        except UserError as error:
            problems.append(_finding(error))
        else:
            logger.warning(f"{'; '.join(problems)}: taking {path} instead")
            return path
    raise UserError(
        f"{folder} has no valid checkpoint ({'; '.join(problems)}); leave --resume out to start "
        "anew"
    )


def _read_name(tag: str) -> str:
    try:
        with open(tag, "rb") as file:
            name = file.read(10_000).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{tag} cannot be read ({type(error).__name__})") from error
    if not name or not name.isprintable():
        raise UserError(f"{tag} names no file")
    return name


def _check(path: str, state: Sequence[str] = ()) -> None:
    """Raise :class:`UserError` unless the checkpoint is valid and holds ``state``."""
    local_path(path)
    if verify_checksum(path) and not state:
        return
    checkpoint = read_checkpoint(path)
    absent = [name for name in state if name not in checkpoint]
    if absent:
        raise UserError(f"{path} holds no state of a training run ({', '.join(absent)})")


def _finding(error: UserError) -> str:
    """The message without its advice, which would be repeated for each file."""
    return str(error).split("; ")[0]


def _newest_first(folder: str) -> list[str]:
    files = [entry for entry in os.scandir(folder) if entry.name.endswith(".pth")]
    files.sort(key=lambda entry: (entry.stat().st_mtime_ns, entry.name), reverse=True)
    return [entry.path for entry in files]
