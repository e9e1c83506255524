"""Checksums beside checkpoints: ``sha256sum -c model_final.pth.sha256`` checks one by hand."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from typing import IO

from ddep.errors import UserError
from ddep.files import atomic_write, sync

_CHUNK_BYTES = 2**20


def checksum_file(path: str) -> str:
    """The path of the checksum of ``path``."""
    return f"{path}.sha256"


class _HashedFile:
    """The part of a file that ``torch.save`` needs; hashes the bytes while they are written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def digest(self) -> str:
        return self._hash.hexdigest()


@contextlib.contextmanager
def write_with_checksum(path: str) -> Iterator[_HashedFile]:
    """Open ``path`` for writing bytes as :func:`atomic_write` does, and write its checksum.

    Killed at any moment, this leaves the old file or the new one, with its own checksum or without
    one, but never with the other's: the old checksum is removed before the new file appears.

    Raises:
        UserError: see :func:`atomic_write`.
    """
    with atomic_write(path) as file:
        hashed = _HashedFile(file)
        yield hashed
        remove_checksum(path)
    _write_checksum(path, hashed.digest())


def add_missing_checksum(path: str) -> None:
    """Write the checksum of a valid file if there is none, as after a kill.

    Raises:
        UserError: the file cannot be read, or the checksum cannot be written.
    """
    if _read_checksum(path) is None:
        _write_checksum(path, _hash(path))


def _write_checksum(path: str, digest: str) -> None:
    with atomic_write(checksum_file(path)) as file:
        file.write(f"{digest}  {os.path.basename(path)}\n".encode())


def _hash(path: str) -> str:
    found = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                found.update(chunk)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; copy it again") from error
    return found.hexdigest()


def remove_checksum(path: str) -> None:
    """Remove the checksum of ``path``, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(checksum_file(path))
        sync(os.path.dirname(os.path.abspath(path)))


def verify_checksum(path: str) -> bool:
    """Compare a file with its checksum.

    Returns:
        Whether there is a checksum. Files of older versions and of other projects have none.

    Raises:
        UserError: the file contradicts its checksum, or cannot be read.
    """
    expected = _read_checksum(path)
    if expected is None:
        return False
    if _hash(path) != expected:
        raise UserError(
            f"{path} is damaged: its checksum is not that in {checksum_file(path)}; copy it again, "
            "or remove the .sha256 if you have changed the file yourself"
        )
    return True


def _read_checksum(path: str) -> str | None:
    """The SHA-256 beside ``path``, in hexadecimal; None if there is none or it is unreadable."""
    try:
        with open(checksum_file(path), "rb") as file:
            line = file.read(1000)
    except OSError:
        return None
    found = re.match(rb"([0-9a-f]{64}) [ *]", line)
    return found[1].decode() if found else None
