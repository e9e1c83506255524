"""Training samples: what the record at a position of the stream is mapped to."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from detectron2.data import DatasetFromList
from torch.utils.data import ConcatDataset, Dataset

from ddep.data.image_reader import UnreadableImageError
from ddep.data.record import Record
from ddep.data.seeding import seeded
from ddep.data.unreadable import check_limit
from ddep.errors import UserError


class SampleKey(NamedTuple):
    """What a sample follows from, besides the records."""

    seed: int  # of the stream
    position: int  # in the stream of all processes
    index: int  # of the record


class Sample(NamedTuple):
    """A mapped record."""

    key: SampleKey
    content: Record
    unreadable: dict[str, str]  # why files that were tried in vain cannot be read, by name


class TrainingSamples(Dataset):
    """Maps records; where an image cannot be read, another one takes its place.

    Augmentation, noise and the image that takes the place follow from the key: the mapper finds the
    global generators seeded for it, and they are put back afterwards. What could not be read goes
    to the main process with the sample, whichever way worker processes were started.
    """

    def __init__(
        self,
        sets: Sequence[Sequence[Record]],
        mapper: Callable[[Record], Record],
        max_unreadable: int,
    ) -> None:
        """
        Args:
            sets: the records of each training set, in detectron2's standard format, none empty. A
                list is kept as one array of bytes, which worker processes share; other sequences
                are taken as they are.
            mapper: from a record to a sample's content.
            max_unreadable: no more than this many files are tried in vain for one sample.
        """
        self.records = ConcatDataset(
            [DatasetFromList(s, copy=False) if isinstance(s, list) else s for s in sets]
        )
        self.mapper = mapper
        self.max_unreadable = max_unreadable

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: SampleKey) -> Sample:
        """
        Raises:
            UserError: none of the records, or too many for the limit, can be read.
        """
        with seeded(key.seed, key.position):
            return self._map(key)

    def _map(self, key: SampleKey) -> Sample:
        unreadable: dict[str, str] = {}
        for candidate in self._candidates(key.index):
            record = self.records[candidate]
            try:
                return Sample(key, self.mapper(record), unreadable)
            except UnreadableImageError as error:
                unreadable[record["file_name"]] = str(error)
                check_limit(unreadable, self.max_unreadable)
        raise UserError(
            f"none of the {len(self)} training images can be read; "
            f"the last: {list(unreadable.values())[-1]}"
        )

    def _candidates(self, index: int) -> Iterator[int]:
        """``index``, then the others in a random order."""
        tried = {index}
        yield index
        while len(tried) < len(self):
            candidate = random.randrange(len(self))
            if candidate not in tried:
                tried.add(candidate)
                yield candidate
