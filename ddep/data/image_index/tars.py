"""List the images in a tar file without unpacking it."""

from __future__ import annotations

import logging
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

import numpy as np

from ddep.data.image_index.containers import (
    SUFFIXES,
    UNSETTLED,
    Container,
    Listing,
    without_tar_suffix,
)
from ddep.data.image_index.strings import Strings
from ddep.errors import UserError

logger = logging.getLogger(__name__)

_GZIP = b"\x1f\x8b"
# Progress is reported in steps of this many images.
_STEP = 1_000

# Offset in the (outer) file and size of a member, in bytes.
_Span = tuple[int, int]


class CompressedTarError(UserError):
    """A tar file is compressed, so its members cannot be read in place."""


def list_tar(root: str, tar: Container, found: Callable[[int], None]) -> Listing:
    """List the images and tar files in ``tar``, by their endings; skip hidden ones.

    Reads only headers. The last of several members with the same name counts, as in unpacking.
    Links to members are followed. A directory ``x`` takes precedence over ``x.tar``.

    Args:
        root: paths are relative to it.
        tar: the tar file.
        found: called with the number of further images found.

    Raises:
        CompressedTarError: it is compressed.
        UserError: it is truncated or damaged, or has sparse images, which are not stored in one
            piece.
        OSError: it cannot be read.
    """
    path = tar.path(root)
    with open(path, "rb") as file:
        members = _Members(file, tar, _describe(path, tar))
        spans = {}
        for name, span in members.wanted():
            spans[name] = span
            if len(spans) % _STEP == 0:
                found(_STEP)
    tars = {name: without_tar_suffix(name) for name in spans if not _is_image(name)}
    names = sorted(spans.keys() - tars.keys())
    folders = _folders(spans)
    children = []
    for name, stem in tars.items():
        if stem in folders:
            logger.warning(f"{path}: {name} in it is left out, {stem}/ in it is used instead")
            continue
        folders.add(stem)
        children.append(Container(f"{tar.prefix}{stem}/", tar.file, *spans[name]))
    found(len(spans) % _STEP)
    return Listing(
        UNSETTLED,
        Strings.pack(names),
        sorted(children),
        np.array([spans[name] for name in names], dtype=np.int64).reshape(-1, 2),
    )


class _Members:
    """The images and tar files in a tar file."""

    def __init__(self, file: BinaryIO, tar: Container, description: str) -> None:
        self._file = file
        self._start = tar.offset
        self._end = os.fstat(file.fileno()).st_size if tar.size < 0 else tar.offset + tar.size
        self._description = description

    def wanted(self) -> Iterator[tuple[str, _Span]]:
        """Yield names and spans; a name may come again, for a later member."""
        regular: dict[str, _Span] = {}
        links: dict[str, str] = {}
        for member in self._headers():
            name = _normalise(member.name)
            if member.isreg():
                regular[name] = member.offset_data, member.size
                links.pop(name, None)
                if _is_wanted(name):
                    self._check_in_one_piece(member)
                    yield name, regular[name]
            elif (member.islnk() or member.issym()) and _is_wanted(name):
                folder = posixpath.dirname(name) if member.issym() else ""
                links[name] = _normalise(posixpath.join(folder, member.linkname))
        missing = 0
        for name, target in links.items():
            for _ in links:  # follows links to links, and ends even if they form a circle
                target = links.get(target, target)
            if target in regular:
                yield name, regular[target]
            else:
                missing += 1
        if missing:
            logger.warning(f"{self._description}: {missing} links to files not in it are left out")

    def _headers(self) -> Iterator[tarfile.TarInfo]:
        """
        Raises:
            UserError: compressed, damaged, or without tar's end mark (interrupted, for example).
        """
        self._file.seek(self._start)
        if self._file.read(len(_GZIP)) == _GZIP:
            raise CompressedTarError(
                f"{self._description} is compressed, so its images cannot be read in place; "
                "gunzip it"
            )
        self._file.seek(self._start)
        try:
            with tarfile.TarFile(fileobj=self._file) as archive:
                while (member := archive.next()) is not None:
                    # Otherwise it keeps every header, perhaps millions.
                    archive.members.clear()
                    if archive.offset <= member.offset:  # it would come again for ever
                        raise tarfile.ReadError(f"{member.name} has a negative size")
                    yield member
                end = archive.offset
        except (tarfile.TarError, ValueError) as error:
            raise self._damaged(str(error)) from error
        self._file.seek(end)
        mark = self._file.read(min(tarfile.BLOCKSIZE, max(0, self._end - end)))
        # tarfile takes a damaged header for the end.
        if len(mark) < tarfile.BLOCKSIZE:
            raise self._damaged("its end is missing")
        if any(mark):
            raise self._damaged(f"no header at byte {end}")

    def _check_in_one_piece(self, member: tarfile.TarInfo) -> None:
        if member.issparse():
            raise UserError(
                f"{self._description}: {member.name} in it is stored with holes and cannot be read "
                "in place; unpack it"
            )

    def _damaged(self, cause: str) -> UserError:
        return UserError(
            f"{self._description} is no tar file, damaged or not whole: {cause}; download or copy "
            "it again, or take it out of the folder"
        )


def _describe(path: str, tar: Container) -> str:
    return path if tar.offset == 0 else f"{path} ({posixpath.basename(tar.prefix[:-1])}.tar in it)"


def _normalise(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _is_wanted(name: str) -> bool:
    """Whether it is an image or a tar file, and neither hidden nor outside."""
    is_hidden = name.startswith(".") or "/." in name
    return not is_hidden and (_is_image(name) or without_tar_suffix(name) is not None)


def _folders(names: Iterable[str]) -> set[str]:
    """All directories above the members."""
    folders: set[str] = set()
    for name in names:
        folder = posixpath.dirname(name)
        while folder and folder not in folders:
            folders.add(folder)
            folder = posixpath.dirname(folder)
    return folders
