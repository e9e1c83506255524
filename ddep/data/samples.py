"""Training samples: mapped records, reproducible from their position in the stream."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from detectron2.data import DatasetFromList
from torch.utils.data import ConcatDataset, Dataset

from ddep.data.class_centre import CLASS_TO_SHOW
from ddep.data.image_reader import UnreadableImageError
from ddep.data.record import Record
from ddep.data.samplers import ClassImages
from ddep.data.seeding import seeded
from ddep.data.unreadable import check_limit
from ddep.errors import UserError


class SampleKey(NamedTuple):
    """Identifies a sample; with the records it determines its content."""

    seed: int  # of the stream
    position: int  # in the stream of all processes
    index: int  # of the record, or of an image and its class, see TrainingSamples


class Sample(NamedTuple):
    """A mapped record."""

    key: SampleKey
    content: Record | list[Record]
    unreadable: dict[str, str]  # why files that were tried first cannot be read, by name


class TrainingSamples(Dataset):
    """Maps records; another image replaces one that cannot be read.

    Augmentation, noise and the replacement depend only on the key: the global generators are seeded
    for it before the mapper runs, and restored afterwards. The names of unreadable files reach the
    main process with the sample, however worker processes are started.
    """

    def __init__(
        self,
        sets: Sequence[Sequence[Record]],
        mapper: Callable[[Record], Record],
        max_unreadable: int,
        class_images: ClassImages | None = None,
    ) -> None:
        """
        Args:
            sets: the records of each training set, in detectron2's standard format, none empty. A
                list becomes one array of bytes, which worker processes share; other sequences are
                kept as they are.
            mapper: from a record to a sample's content.
            max_unreadable: at most this many files may turn out unreadable for one sample.
            class_images: what indices from the number of records on mean: an image and a class,
                which the mapper finds in the record as ``class_to_show``.
        """
        self.records = ConcatDataset(
            [DatasetFromList(s, copy=False) if isinstance(s, list) else s for s in sets]
        )
        self.mapper = mapper
        self.max_unreadable = max_unreadable
        self.class_images = class_images

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: SampleKey) -> Sample:
        """
        Raises:
            UserError: no record can be read, or more than the limit cannot.
        """
        with seeded(key.seed, key.position):
            unreadable: dict[str, str] = {}
            return Sample(key, self._content(key.index, unreadable), unreadable)

    def _content(self, index: int, unreadable: dict[str, str]) -> Record | list[Record]:
        """The sample's content; files that cannot be read are added to ``unreadable``."""
        return self._map(index, unreadable)

    def _map(self, index: int, unreadable: dict[str, str]) -> Record:
        shown = {}
        if index >= len(self):
            index, class_id = self.class_images[index - len(self)]
            shown = {CLASS_TO_SHOW: class_id}
        for candidate in self._candidates(index):
            record = self.records[candidate]
            if candidate == index:
                record = {**record, **shown}
            try:
                return self.mapper(record)
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


class TrainingPairs(TrainingSamples):
    """Samples of two mapped records each: that of the key, and one drawn at random."""

    def _content(self, index: int, unreadable: dict[str, str]) -> list[Record]:
        other = random.randrange(len(self))
        return [self._map(index, unreadable), self._map(other, unreadable)]
