"""Keep an index of every root: built once, shared by all processes, updated when needed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ddep.data.image_index import stored
from ddep.data.image_index.containers import Container, container_of_video, status_of
from ddep.data.image_index.indexing_progress import show_progress
from ddep.data.image_index.lister import Lister
from ddep.data.image_index.read_index import ImageIndex
from ddep.data.image_index.stored import StoredListings, read_containers
from ddep.data.image_index.videos import FRAME_RATE
from ddep.data.image_index.walking import walk
from ddep.data.image_index.write_index import write_index
from ddep.data.video_capture import is_video
from ddep.errors import UserError
from ddep.files import sync

logger = logging.getLogger(__name__)

# Folders in a root's folder. Finished and unfinished indexes are numbered together.
_FINISHED = "index"
_UNFINISHED = "unfinished"
_NUMBERED = re.compile(rf"(?:{_FINISHED}|{_UNFINISHED})-(\d+)")
# Increased when the layout of the files changes.
_LAYOUT = 2


def cache_folder() -> Path:
    """Where indexes are kept: $DDEP_CACHE, else ``ddep`` in $XDG_CACHE_HOME or ``~/.cache``.

    Raises:
        OSError: the user has no home folder.
    """
    parent = os.getenv("XDG_CACHE_HOME") or "~/.cache"
    try:
        return Path(os.getenv("DDEP_CACHE") or f"{parent}/ddep").expanduser().absolute()
    except RuntimeError as error:
        raise OSError(errno.ENOENT, "there is no home folder") from error


def open_index(source: Path, frame_rate: float = FRAME_RATE) -> ImageIndex:
    """Open the index of a folder, tar file or video; build or update it if needed.

    Only containers that have changed are listed again. If several processes ask at the same time,
    on this machine or on others with the same cache, one builds and the others wait. If the cache
    cannot be written, the index is a temporary one, with a warning.

    Args:
        source: absolute path.
        frame_rate: frames a second that are taken from videos.

    Raises:
        UserError: a container that cannot be listed; images only in compressed tar files; not even
            a temporary index can be written.
    """
    top = _top(source)
    root = str(source if source.is_dir() else source.parent)
    asked = time.time_ns()
    try:
        home = home_of(source, frame_rate)
        home.mkdir(parents=True, exist_ok=True)
        with _locked(home / "lock") as lock:
            began = time.time_ns()
            # If another process began to look after this one asked, its index will do. Its clock
            # may differ.
            content = lock.read()
            is_checked = content.isdigit() and asked <= int(content) <= began
            index = _newest(home)
            if index is None or not (is_checked or _is_current(index, root)):
                del index  # closes it: it may be removed
                index = _build(home, root, top, frame_rate)
            lock.seek(0)
            lock.truncate()
            lock.write(str(began).encode())
            return index
    except OSError as error:
        return _open_without_writing(source, root, top, frame_rate, error)


def _top(source: Path) -> Container:
    if source.is_dir():
        return Container("")
    return container_of_video(source.name) if is_video(source.name) else Container("", source.name)


def _open_without_writing(
    source: Path, root: str, top: Container, frame_rate: float, reason: OSError
) -> ImageIndex:
    with contextlib.suppress(OSError):
        index = _newest(home_of(source, frame_rate))
        if index is not None and _is_current(index, root):
            return index
    logger.warning(
        f"the index of {source} cannot be kept ({reason}); every process makes a temporary one; "
        "set DDEP_CACHE to a folder that can be written"
    )
    return _build_temporary(root, top, frame_rate)


def home_of(source: Path, frame_rate: float = FRAME_RATE) -> Path:
    """The folder of a root's indexes with ``frame_rate`` frames a second of videos."""
    rate = "" if frame_rate == FRAME_RATE else f"@{frame_rate!r}fps"
    digest = hashlib.sha256(os.fsencode(source) + rate.encode()).hexdigest()[:16]
    return cache_folder() / "images" / f"{digest}-{_LAYOUT}"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Hold a lock that ends with the process; the file is open for reading and writing."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info(f"waiting for another process that updates {path.parent}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _numbered(home: Path) -> list[tuple[int, Path]]:
    """The indexes, finished or not, of one root; newest first."""
    found = []
    for path in home.iterdir() if home.is_dir() else ():
        name = _NUMBERED.fullmatch(path.name)
        if name:
            found.append((int(name[1]), path))
    return sorted(found, reverse=True)


def _newest(home: Path) -> ImageIndex | None:
    """The newest finished index that is not damaged."""
    for _, path in _numbered(home):
        if path.name.startswith(_FINISHED):
            try:
                return ImageIndex(path)
            except (OSError, ValueError, LookupError, TypeError) as error:
                logger.warning(f"{path} is damaged ({error}); it is built again")
    return None


def _is_current(index: ImageIndex, root: str) -> bool:
    """Whether no container has changed. Does not look at the images themselves."""
    file, status = "", None
    for entry in read_containers(index.folder):
        container = entry.container
        if not container.file or container.file != file:  # nested tars change with the outer one
            try:
                status = status_of(os.stat(container.path(root)))
            except OSError:
                return False
            file = container.file
        if entry.status != status:
            return False
    return True


def _build(home: Path, root: str, top: Container, frame_rate: float) -> ImageIndex:
    others = _numbered(home)
    number = others[0][0] + 1 if others else 1
    unfinished = home / f"{_UNFINISHED}-{number:06d}"
    logger.info(f"indexing the images in {top.path(root)}; the index is kept in {home}")
    known = _read_known([path for _, path in others])
    try:
        _write(unfinished, root, top, known, frame_rate)
    except OSError:  # such as a full disk; after other errors the unfinished index is used again
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    finished = home / f"{_FINISHED}-{number:06d}"
    unfinished.rename(finished)
    sync(str(home))
    for _, path in others:
        if not _is_used(path):
            shutil.rmtree(path, ignore_errors=True)
    return ImageIndex(finished)


def _read_known(indexes: list[Path]) -> list[StoredListings]:
    """Read the newest finished index and the unfinished one with the most containers.

    Other unfinished ones are removed, so that they do not pile up when indexing fails repeatedly.
    """
    finished: list[StoredListings] = []
    unfinished: dict[Path, StoredListings] = {}
    for path in indexes:
        with contextlib.suppress(OSError):  # interrupted before all files existed
            if path.name.startswith(_UNFINISHED):
                unfinished[path] = StoredListings(path)
            elif not finished:
                finished.append(StoredListings(path))
    furthest = sorted(unfinished, key=lambda path: len(unfinished[path]))
    for path in furthest[:-1]:
        shutil.rmtree(path, ignore_errors=True)
    return [*(unfinished[path] for path in furthest[-1:]), *finished]


def _is_used(index: Path) -> bool:
    """Whether any process, on this machine or another, has the index open."""
    try:
        with open(index / stored.HEADER, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no header: it was never finished
        return False
    return False


def _build_temporary(root: str, top: Container, frame_rate: float) -> ImageIndex:
    try:
        folder = Path(tempfile.mkdtemp(prefix="ddep-index-"))
        _write(folder, root, top, [], frame_rate)
        index = ImageIndex(folder)
    except OSError as error:
        raise UserError(
            f"no index of the images in {root} can be written, not even a temporary one ({error}); "
            "set DDEP_CACHE to a folder with space"
        ) from error
    index.remove_at_end()
    return index


def _write(
    folder: Path, root: str, top: Container, known: list[StoredListings], frame_rate: float
) -> None:
    started = time.monotonic()
    source = top.path(root)
    with show_progress(source) as progress:
        lister = Lister(root, known, progress.found, frame_rate=frame_rate)
        write_index(folder, root, walk(top, lister))
    if lister.compressed and not lister.images:
        raise lister.compressed[0]
    logger.info(
        f"indexed {lister.images} images in {lister.containers} folders, tar files and videos of "
        f"{source}, {lister.listed} of them listed again, in {time.monotonic() - started:.1f} s"
    )
