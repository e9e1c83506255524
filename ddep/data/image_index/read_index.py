"""Read an index: make records from it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import operator
import os
import shutil
import weakref
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddep.data.image_index import stored
from ddep.data.image_index.stored import map_file, read_containers
from ddep.data.image_index.strings import Strings
from ddep.data.record import Record
from ddep.data.tar_members import name_member
from ddep.data.video_capture import is_video
from ddep.data.video_frames import name_frame


class ImageIndex(Sequence[Record]):
    """The records of all images and frames below a root, sorted by ``image_id``, made on access.

    The index stays in its files, which are mapped into memory and shared by worker processes,
    however these are started. It is not removed while anyone uses it.

    A record has ``file_name``, which ``PathManager`` opens, and ``image_id``, the path relative to
    the root, with ``/``.
    """

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: as :func:`ddep.data.image_index.write_index.write_index` wrote it.

        Raises:
            OSError, ValueError, LookupError, TypeError: there is none, or it is damaged.
        """
        self.folder = folder
        in_use = os.open(folder / stored.HEADER, os.O_RDONLY)
        weakref.finalize(self, os.close, in_use)
        with contextlib.suppress(OSError):  # some network disks have no locks
            fcntl.flock(in_use, fcntl.LOCK_SH)
        header = json.loads((folder / stored.HEADER).read_text(encoding="utf-8"))
        for name, size in header["sizes"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{folder / name} does not have the expected size")
        self._root = header["root"]
        self._names, self._prefixes = (
            Strings(map_file(folder / block, np.uint8), map_file(folder / starts, np.int64))
            for block, starts in (
                (stored.NAMES, stored.NAME_STARTS),
                (stored.PREFIXES, stored.PREFIX_STARTS),
            )
        )
        self._spans = map_file(folder / stored.SPANS, np.int64).reshape(-1, 2)
        # A run is a series of images that are consecutive both in the order and in ``names``. It
        # has the index of its first name, of that image's span (if any) and of the container.
        # Positions are each run's first position in the order, and finally the number of images.
        self._runs = map_file(folder / stored.RUNS, np.int64).reshape(-1, 3)
        self._positions = map_file(folder / stored.RUN_POSITIONS, np.int64)
        self._length = int(self._positions[-1])

    def __reduce__(self) -> tuple[type[ImageIndex], tuple[Path]]:
        return ImageIndex, (self.folder,)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self._record(i) for i in range(*index.indices(len(self)))]
        position = operator.index(index)
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"{index} of {len(self)} images")
        return self._record(position)

    def _record(self, position: int) -> Record:
        run = bisect_right(self._positions, position) - 1
        within = position - self._positions[run]
        name, span, container = self._runs[run]
        image_id = self._prefixes[2 * container] + self._names[name + within]
        file = self._prefixes[2 * container + 1]
        if not file:
            return {"file_name": os.path.join(self._root, image_id), "image_id": image_id}
        path = os.path.join(self._root, file)
        numbers = self._spans[span + within].tolist()
        if is_video(file):
            return {"file_name": name_frame(path, *numbers), "image_id": image_id}
        return {"file_name": name_member(path, *numbers, image_id), "image_id": image_id}

    def damaged_videos(self) -> dict[str, str]:
        """What is wrong with each damaged video, by path; frames of it may be in the index."""
        return {
            entry.container.path(self._root): entry.problem
            for entry in read_containers(self.folder)
            if entry.problem
        }

    def remove_at_end(self) -> None:
        """Remove the index when this object is deleted or this process exits normally."""
        weakref.finalize(self, _remove, self.folder, os.getpid())


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a worker process that has a copy of the object
        shutil.rmtree(folder, ignore_errors=True)
