"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO

from ddep.errors import UserError


@contextlib.contextmanager
def atomic_write(path: str) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing bytes, so that it changes all at once or not at all.

    The bytes go to a temporary file in the same folder, which is synced to the disk and renamed to
    ``path`` at the end. If anything fails, the temporary file goes away and ``path`` is as it was.

    Raises:
        UserError: the folder is missing or not writable, or the disk is full.
    """
    folder, name = os.path.split(os.path.abspath(path))
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(folder)
    except (OSError, RuntimeError) as error:
        # torch.save turns a full disk's OSError into a RuntimeError about zip positions.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise UserError(
            f"{path} cannot be written: {cause.strerror}; free space or choose another folder "
            "(files that were there before are unchanged)"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.remove(temporary)


def sync(path: str) -> None:
    """Make a file, or the names in a folder, last through a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
