"""``tar://``: files inside tar files, opened in place through detectron2's ``PathManager``."""

from __future__ import annotations

import errno
import io
import os
import re
from functools import lru_cache
from typing import IO, Any

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler

_PREFIX = "tar://"
_NAME = re.compile(r"tar://(.+)\?offset=(\d+)&size=(\d+)#.*", re.DOTALL)
# Number of files that a process keeps open.
_OPEN_FILES = 64


def name_member(path: str, offset: int, size: int, member: str) -> str:
    """The name under which ``PathManager`` opens a part of a file.

    Args:
        path: the tar file.
        offset: of the part's first byte in the file.
        size: of the part, in bytes.
        member: name of the part, for people.
    """
    return f"{_PREFIX}{path}?offset={offset}&size={size}#{member}"


def member_path(name: str) -> str:
    """``path/member`` for a name that :func:`name_member` makes; other names unchanged."""
    if not name.startswith(_PREFIX):
        return name
    return f"{_parse(name)[0]}/{name.partition('#')[2]}"


class TarMemberHandler(PathHandler):
    """Opens the names that :func:`name_member` makes, for reading bytes.

    Any number of threads and worker processes may read at once.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return [_PREFIX]

    def _open(
        self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any
    ) -> IO[str] | IO[bytes]:
        self._check_kwargs(kwargs)
        if mode != "rb":
            raise OSError(errno.EROFS, "a file in a tar file is opened as rb only", path)
        tar, offset, size = _parse(path)
        content = _open_file(tar, file_version(os.stat(tar))).read(offset, size)
        if len(content) != size:
            raise OSError(errno.EIO, f"{tar} is shorter than when it was indexed", path)
        return io.BytesIO(content)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        self._check_kwargs(kwargs)
        tar, offset, size = _parse(path)
        return os.path.isfile(tar) and os.path.getsize(tar) >= offset + size

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return self._exists(path, **kwargs)


def _parse(name: str) -> tuple[str, int, int]:
    """The tar file's path, the part's offset and its size."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise OSError(errno.ENOENT, "expected tar://FILE?offset=BYTES&size=BYTES#NAME", name)
    return found[1], int(found[2]), int(found[3])


def file_version(status: os.stat_result) -> tuple[int, ...]:
    """Changes when a file is replaced, so that the old one is no longer read."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=_OPEN_FILES)
def _open_file(path: str, version: tuple[int, ...]) -> _OpenFile:
    return _OpenFile(path)


class _OpenFile:
    """A file that is closed when no cache and no thread uses it any more."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, offset: int, size: int) -> bytes:
        """Read up to ``size`` bytes, fewer at the file's end. Safe to call from several threads."""
        return os.pread(self._descriptor, size, offset)

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):  # opening it may have failed
            os.close(self._descriptor)


PathManager.register_handler(TarMemberHandler())
