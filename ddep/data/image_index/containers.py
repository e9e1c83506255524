"""Containers of images (folders, tar files, tar files in them, videos) and their listings."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ddep.data.image_index.strings import Strings

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
# Compressed tar files cannot be read in place; a .tar.gz or .tgz may still be a plain tar file.
TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")

# Changes when something in a container is added, removed or renamed.
Status = tuple[int, ...]
# The status of a container that may have changed since without changing its times.
UNSETTLED: Status = ()


class Container(NamedTuple):
    """A folder, a tar file, a tar file in another one, or a video.

    Attributes:
        prefix: prepended to the names of its images: a path relative to the root that ends with
            ``/``, or nothing. A tar file counts as a folder with its name without .tar; a video's
            prefix is its path and ``#``.
        file: path of the (outer) tar file or the video, relative to the root; nothing for a folder.
        offset: of the tar in that file, in bytes.
        size: of the tar in that file, in bytes; -1 means up to the file's end.
    """

    prefix: str
    file: str = ""
    offset: int = 0
    size: int = -1

    def path(self, root: str) -> str:
        """Path of the folder, the (outer) tar file or the video."""
        inside = self.file or self.prefix
        return os.path.join(root, inside) if inside else root


@dataclass
class Listing:
    """The images and containers directly in a container, not those further down.

    Attributes:
        status: of the container just before it was listed.
        names: of the images, relative to the container, sorted.
        children: sorted by prefix.
        spans: (N, 2) int64, offset and size of each image in the (outer) tar file, or number and
            time in microseconds of each frame of a video; (0, 2) for folders.
        problem: what is wrong with a damaged video, nothing otherwise.
    """

    status: Status
    names: Strings
    children: list[Container]
    spans: np.ndarray = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))
    problem: str = ""


def status_of(found: os.stat_result) -> Status:
    """A container's status, from its ``os.stat``.

    Device numbers are left out: they change when network disks are mounted again. The inode's
    change time reveals changes by programs that reset the modification time.
    """
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def container_of_video(path: str) -> Container:
    """The container of a video; its path is relative to the root."""
    return Container(f"{path}#", path)


def without_tar_suffix(name: str) -> str | None:
    """The name of a tar file as a folder; None if ``name`` is not that of a tar file."""
    for suffix in TAR_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return None
