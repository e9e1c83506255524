"""Keeps two processes from working on the same experiment."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddep.errors import UserError


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Make ``folder`` and lock it.

    Yields:
        A file descriptor. The lock lasts as long as any process has it open: children that inherit
        it keep the folder locked when this process is killed.

    Raises:
        UserError: the folder cannot be made, or another process works on it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written: {error.strerror}; choose another folder with --output"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process works on {folder}; wait for its end, or choose another folder "
                "with --output"
            ) from error
        yield file.fileno()
