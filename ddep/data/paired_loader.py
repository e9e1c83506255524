"""Batches of two streams: labelled images and target images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from ddep.data.parts import cut
from ddep.data.record import Record
from ddep.data.train_loader import TrainLoader
from ddep.errors import UserError


class PairedLoader:
    """Iterates endlessly over batches that have images of both streams.

    Each of the equal parts that a batch is cut into (SOLVER.ACCUMULATION_STEPS) has the same share
    of both.
    """

    def __init__(self, source: TrainLoader, target: TrainLoader, parts: int) -> None:
        """
        Args:
            source: batches of labelled samples.
            target: batches of target samples, or of lists of them.
            parts: divides the number of samples in a batch of either.
        """
        self._source = source
        self._target = target
        self._parts = parts

    def __iter__(self) -> Iterator[list[Record]]:
        """Start both loaders' workers; errors are theirs."""
        for source, target in zip(self._source, self._target, strict=True):
            yield list(chain.from_iterable(self._interleave(source, _flat(target))))

    def _interleave(self, source: list[Record], target: list[Record]) -> Iterator[list[Record]]:
        for batch in zip(cut(source, self._parts), cut(target, self._parts), strict=True):
            yield from batch

    @property
    def unreadable(self) -> dict[str, str]:
        """As :attr:`TrainLoader.unreadable`, of both."""
        return self._source.unreadable | self._target.unreadable

    def state_dict(self) -> dict[str, Any]:
        """``source`` and ``target``: see :meth:`TrainLoader.state_dict`."""
        return {"source": self._source.state_dict(), "target": self._target.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state; see :meth:`TrainLoader.load_state_dict`.

        Raises:
            UserError: the state is of a run without target images, or of other images.
        """
        if "target" not in state:
            raise UserError(
                "the resumed run had no target images (MODEL.ADAPTATION.METHOD was empty); resume "
                "it with the config that it was started with"
            )
        self._source.load_state_dict(state["source"])
        self._target.load_state_dict(state["target"])


def _flat(samples: list[Record] | list[list[Record]]) -> list[Record]:
    return [
        record
        for sample in samples
        for record in (sample if isinstance(sample, list) else [sample])
    ]
