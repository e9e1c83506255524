"""Write files atomically: whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ddep.errors import UserError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# OpenCV chooses the format of a video by the ending.
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp(?i:\.(mp4|avi))?")


@contextlib.contextmanager
def atomic_write(path: str | Path, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing bytes, so that it changes all at once or not at all.

    The bytes go to a temporary file in the same folder, which is renamed to ``path`` at the end. If
    anything fails, the temporary file is removed and ``path`` is unchanged.

    Args:
        path: the file.
        durable: sync it to the disk before it is renamed, so that a power cut loses nothing either.
            This takes time; leave it out for thousands of small files that can be made again.

    Raises:
        UserError: the folder is missing or not writable, or the disk is full.
    """
    folder = os.path.dirname(os.path.abspath(path))
    temporary = temporary_file(path)
    try:
        with open(temporary, "wb") as file:
            lock(file)
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
        if durable:
            sync(folder)
    except (OSError, RuntimeError) as error:
        # torch.save turns a full disk's OSError into a RuntimeError about zip positions.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise UserError(
            f"{path} cannot be written: {cause.strerror or cause}; free space or choose another "
            "folder (files that were there before are unchanged)"
        ) from error
    finally:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.remove(temporary)


def temporary_file(path: str | Path, suffix: str = "") -> Path:
    """Where this process may write until ``path`` is complete: a file in the same folder, which
    :func:`remove_leftovers` removes after a kill.

    Args:
        path: the file.
        suffix: such as ``.mp4``, if the ending matters.
    """
    path = Path(os.path.abspath(path))
    return path.with_name(f".{path.name}.{os.getpid()}.tmp{suffix}")


def is_full_disk(error: BaseException | None) -> bool:
    """Whether the disk is full, or the user's quota on it."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def sync(path: str) -> None:
    """Sync a file, or the names in a folder, to the disk, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: str) -> None:
    """Remove the temporary files that killed processes left in ``folder``.

    Files that are still being written, in any process, are locked and stay; see :func:`lock`.
    """
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        # Leave those that disappear meanwhile or belong to another user.
        if _TEMPORARY.fullmatch(name):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.remove(path)


def lock(file: IO[bytes]) -> None:
    """Mark ``file`` as being written, for as long as it is open and this process lives."""
    with contextlib.suppress(OSError):  # some network disks have no locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
