"""Training goes on when some images cannot be read, and says which."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from detectron2.data import DatasetFromList
from torch.utils.data import Dataset

from ddep.data.image_reader import UnreadableImageError
from ddep.errors import UserError

Record = dict[str, Any]

logger = logging.getLogger(__name__)


class ReadableSamples(Dataset):
    """Maps records; where an image cannot be read, another one takes its place.

    The sample that took the place has a key ``unreadable``: a dict of the files that were tried in
    vain and why they cannot be read. So what worker processes found travels to the main process
    with the data, whichever way the workers were started; see :class:`TrainLoader`.
    """

    def __init__(
        self, records: list[Record], mapper: Callable[[Record], Record], max_unreadable: int
    ) -> None:
        """
        Args:
            records: in detectron2's standard data set format.
            mapper: from a record to a sample, a dict.
            max_unreadable: no more than this many files are tried in vain for one sample.
        """
        self.records = DatasetFromList(records, copy=False)
        self.mapper = mapper
        self.max_unreadable = max_unreadable

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        """
        Raises:
            UserError: none of the records, or too many for the limit, can be read.
        """
        unreadable: dict[str, str] = {}
        for candidate in self._candidates(index):
            record = self.records[candidate]
            try:
                sample = self.mapper(record)
            except UnreadableImageError as error:
                unreadable[record["file_name"]] = str(error)
                check_limit(unreadable, self.max_unreadable)
                continue
            if unreadable:
                sample["unreadable"] = unreadable
            return sample
        raise UserError(
            f"none of the {len(self)} training images can be read; "
            f"the last: {list(unreadable.values())[-1]}"
        )

    def _candidates(self, index: int) -> Iterator[int]:
        yield index
        # NumPy's global generator: seeded in each worker, as the augmentations need.
        yield from np.random.permutation(len(self)).tolist()


class TrainLoader:
    """Takes ``unreadable`` out of a loader's samples; counts these files and logs their names."""

    def __init__(self, loader: Iterable[list[Record]], max_unreadable: int) -> None:
        """
        Args:
            loader: yields batches of :class:`ReadableSamples`' samples.
            max_unreadable: how many different images this process may miss
                (``INPUT.MAX_UNREADABLE``).
        """
        self.loader = loader
        self.max_unreadable = max_unreadable
        self.unreadable: dict[str, str] = {}

    def __iter__(self) -> Iterator[list[Record]]:
        """
        Raises:
            UserError: more images than the limit could not be read.
        """
        for batch in self.loader:
            for sample in batch:
                self._log(sample.pop("unreadable", {}))
            yield batch

    def _log(self, found: dict[str, str]) -> None:
        for path, message in found.items():
            if path in self.unreadable:
                continue
            self.unreadable[path] = message
            check_limit(self.unreadable, self.max_unreadable)
            logger.warning(
                "skipped: %s (unreadable so far: %d; INPUT.MAX_UNREADABLE: %d)",
                message,
                len(self.unreadable),
                self.max_unreadable,
            )


def check_limit(unreadable: dict[str, str], max_unreadable: int) -> None:
    """Raise :class:`UserError` if there are more than ``INPUT.MAX_UNREADABLE`` unreadable images.

    Args:
        unreadable: why each of them cannot be read, by file, the last one last.
        max_unreadable: the limit.
    """
    if len(unreadable) > max_unreadable:
        raise UserError(
            f"{len(unreadable)} training images cannot be read, but INPUT.MAX_UNREADABLE allows "
            f"{max_unreadable}; the last: {list(unreadable.values())[-1]}"
        )
