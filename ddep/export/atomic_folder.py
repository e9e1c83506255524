"""Write a folder completely or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterator

from ddep.errors import UserError
from ddep.files import sync


@contextlib.contextmanager
def atomic_folder(path: str, files: Collection[str], *, overwrite: bool = False) -> Iterator[str]:
    """Write a folder of files, so that it appears all at once or not at all.

    The block writes into a temporary folder beside ``path``, which is synced to the disk and
    renamed to ``path`` at the end. If anything fails, the temporary folder is removed and ``path``
    is unchanged.

    Args:
        path: the folder to write; its parent is created.
        files: names of all files that the block may write.
        overwrite: whether to replace a folder at ``path``, if it holds only such files.

    Yields:
        The temporary folder.

    Raises:
        UserError: ``path`` exists and must not be replaced, or cannot be written, as on a full
            disk.
    """
    parent, name = os.path.split(os.path.abspath(path))
    check_replaceable(path, files, overwrite=overwrite)
    temporary = os.path.join(parent, f".{name}.{os.getpid()}.tmp")
    replaced = os.path.join(parent, f".{name}.{os.getpid()}.old")
    try:
        os.makedirs(parent, exist_ok=True)
        os.mkdir(temporary)
        yield temporary
        for file in os.listdir(temporary):
            sync(os.path.join(temporary, file))
        sync(temporary)
        if os.path.isdir(path):
            os.rename(path, replaced)
        try:
            os.rename(temporary, path)
        except OSError:
            if os.path.isdir(replaced):
                os.rename(replaced, path)
            raise
        sync(parent)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}; free space or choose another "
            "folder (what was there before is unchanged)"
        ) from error
    finally:
        for leftover in (temporary, replaced):
            shutil.rmtree(leftover, ignore_errors=True)


def check_replaceable(path: str, files: Collection[str], *, overwrite: bool) -> None:
    """Check that :func:`atomic_folder` may write ``path``; arguments as there.

    Raises:
        UserError: it may not.
    """
    if not os.path.lexists(path):
        return
    if not os.path.isdir(path) or os.path.islink(path):
        raise UserError(f"DST {path} is a file; name a folder to write")
    if not overwrite:
        raise UserError(f"DST {path} exists; choose another name or add --overwrite")
    others = [name for name in os.listdir(path) if name not in files]
    if others:
        raise UserError(
            f"DST {path} holds {others[0]}, which no conversion has written; choose another name"
        )
