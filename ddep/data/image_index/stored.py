"""The listings of containers that an index keeps for the next time, even an interrupted one.

An index is a folder of flat files:

* ``names``, ``name_starts``: :class:`Strings`, the names of all images, container by container;
* ``spans``: (M, 2) int64, offset and size of the images in tar files, number and time of frames;
* ``containers.jsonl``: a line for each container, see :class:`StoredContainer`;
* ``prefixes``, ``prefix_starts``: :class:`Strings`, prefix and file of each container;
* ``runs``, ``run_positions``: see :mod:`ddep.data.image_index.read_index`;
* ``index.json``: the sizes of the others. It is written last.

The first three groups grow as containers are listed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ddep.data.image_index.containers import Container, Listing, Status
from ddep.data.image_index.strings import Strings

NAMES = "names"
NAME_STARTS = "name_starts"
SPANS = "spans"
CONTAINERS = "containers.jsonl"
PREFIXES = "prefixes"
PREFIX_STARTS = "prefix_starts"
RUNS = "runs"
RUN_POSITIONS = "run_positions"
HEADER = "index.json"


class StoredContainer(NamedTuple):
    """A line of ``containers.jsonl``.

    Attributes:
        container: the container.
        status: from its listing.
        children: from its listing.
        first: index of its first image in ``names``.
        images: number of images.
        first_span: index of the first image's span in ``spans``.
        checksum: of names, their lengths and spans.
        problem: from the listing.
    """

    container: Container
    status: Status
    children: list[Container]
    first: int
    images: int
    first_span: int
    checksum: int
    problem: str

    def to_line(self) -> bytes:
        return json.dumps(self).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> StoredContainer:
        """
        Raises:
            ValueError, TypeError: an unfinished line.
        """
        container, status, children, *others = json.loads(line)
        return cls(
            Container(*container),
            tuple(status),
            [Container(*child) for child in children],
            *others,
        )


def checksum(listing: Listing) -> int:
    """A checksum that shows whether names or spans are damaged."""
    lengths = np.diff(listing.names.starts)
    return zlib.crc32(listing.spans, zlib.crc32(lengths, zlib.crc32(listing.names.block)))


def map_file(path: Path, dtype: type[np.generic]) -> np.ndarray:
    """Map the whole items in a file into memory, (N,): processes share what they read."""
    items = path.stat().st_size // np.dtype(dtype).itemsize
    if not items:
        return np.empty(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=(items,)))


def read_containers(index: Path) -> Iterator[StoredContainer]:
    """Yield the lines of ``containers.jsonl`` up to the first damaged or unfinished one."""
    with open(index / CONTAINERS, "rb") as file:
        for line in file:
            try:
                yield StoredContainer.from_line(line)
            except (ValueError, TypeError):
                return


class StoredListings:
    """The listings in an index, finished or not."""

    def __init__(self, index: Path) -> None:
        """
        Raises:
            OSError: it cannot be read.
        """
        self._names = map_file(index / NAMES, np.uint8)
        self._starts = map_file(index / NAME_STARTS, np.int64)
        self._spans = map_file(index / SPANS, np.int64)
        self._containers = {stored.container: stored for stored in read_containers(index)}

    def __len__(self) -> int:
        return len(self._containers)

    def find(self, container: Container, status: Status) -> Listing | None:
        """The listing of ``container``; None if it is unknown, has changed or is damaged."""
        stored = self._containers.get(container)
        if stored is None or stored.status != status:
            return None
        starts = self._starts[stored.first : stored.first + stored.images + 1]
        if len(starts) != stored.images + 1:
            return None
        spans = self._spans[2 * stored.first_span :][: 2 * stored.images if container.file else 0]
        names = Strings(self._names[starts[0] : starts[-1]], starts - starts[0])
        listing = Listing(status, names, stored.children, spans.reshape(-1, 2), stored.problem)
        return listing if checksum(listing) == stored.checksum else None
