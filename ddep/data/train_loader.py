"""The endless loader of training batches, which can be resumed exactly."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from detectron2.utils import comm

from ddep.data.samplers import TrainSampler
from ddep.data.samples import Record, Sample, SampleKey, TrainingSamples
from ddep.data.steady_loader import SteadyLoader
from ddep.data.unreadable import UnreadableImages
from ddep.errors import UserError

logger = logging.getLogger(__name__)

# Changing these moves samples to other batches or processes; the stream remains the same.
_LAYOUT = {
    "world_size": "processes",
    "batch_size": "SOLVER.IMS_PER_BATCH",
    "aspect_ratio_grouping": "DATALOADER.ASPECT_RATIO_GROUPING",
}


class TrainLoader:
    """Iterates endlessly over batches of a stream of samples.

    The stream is the same for any number of processes and workers: process r of N takes the samples
    at the positions r, r + N, r + 2 N, ... With aspect-ratio grouping, a batch is all landscape or
    all not, and a sample waits until its batch is complete.

    Iterating starts after the last batch that was yielded, or where :meth:`load_state_dict` says.
    """

    def __init__(
        self,
        samples: TrainingSamples,
        sampler: TrainSampler,
        *,
        seed: int,
        batch_size: int,
        num_workers: int,
        aspect_ratio_grouping: bool,
        origin: dict[str, Any],
    ) -> None:
        """
        Args:
            samples: makes a sample from a key.
            sampler: the order of the records.
            seed: of the stream, not negative; the same in all processes.
            batch_size: of all processes together, a multiple of their number.
            num_workers: worker processes of this process; with 0 it makes the samples itself.
            aspect_ratio_grouping: see above; samples then need ``width`` and ``height``.
            origin: what else determines the stream besides the seed, by config key or name; plain
                values. A state with another origin is refused.
        """
        self._samples = samples
        self._sampler = sampler
        self._num_workers = num_workers
        self._rank = comm.get_rank()
        self._origin = origin
        self._seed = seed
        self._layout = {
            "world_size": comm.get_world_size(),
            "batch_size": batch_size,
            "aspect_ratio_grouping": aspect_ratio_grouping,
        }
        # Position after the last batch that was yielded.
        self._position = 0
        self._waiting: list[SampleKey] = []
        self._unreadable = UnreadableImages(samples.max_unreadable)

    @property
    def unreadable(self) -> dict[str, str]:
        """Why each of the images that this process has skipped cannot be read, by file."""
        return self._unreadable.found

    def __iter__(self) -> Iterator[list[Record]]:
        """Start the workers, which make batches ahead.

        Raises (when a batch is taken):
            UserError: more images than ``INPUT.MAX_UNREADABLE`` could not be read, or what the
                mapper raises.
            RuntimeError: a worker process died.
        """
        world_size = self._layout["world_size"]
        batch_size = self._layout["batch_size"] // world_size
        keys = chain(self._waiting, self._keys(self._position + self._rank, world_size))
        batches = iter(lambda: list(islice(keys, batch_size)), [])
        loader = SteadyLoader(self._samples, batches, self._num_workers)
        return self._batches(chain.from_iterable(iter(loader)), batch_size)

    def _batches(self, samples: Iterator[Sample], batch_size: int) -> Iterator[list[Record]]:
        groups: dict[bool, list[Sample]] = {False: [], True: []}
        for sample in samples:
            self._unreadable.add(sample.unreadable)
            group = groups[self._is_landscape(sample)]
            group.append(sample)
            if len(group) == batch_size:
                batch = [sample.content for sample in group]
                group.clear()
                # Samples that waited when a state was saved come first and complete no batch, so
                # this one is the last of the stream so far.
                self._position = sample.key.position - self._rank + self._layout["world_size"]
                self._waiting = [sample.key for group in groups.values() for sample in group]
                yield batch

    def _keys(self, start: int, step: int) -> Iterator[SampleKey]:
        indices = islice(self._sampler.indices(self._seed, start), 0, None, step)
        for i, index in enumerate(indices):
            yield SampleKey(self._seed, start + i * step, index)

    def _is_landscape(self, sample: Sample) -> bool:
        if not self._layout["aspect_ratio_grouping"]:
            return False
        return sample.content["width"] > sample.content["height"]

    def state_dict(self) -> dict[str, Any]:
        """Where this process is after the last batch that was yielded, as plain Python values.

        - ``seed``: of the stream;
        - ``position``: in the stream of all processes; this one continues ``rank`` places later. It
          is the same in all processes, except with aspect-ratio grouping, where they drift apart;
        - ``waiting``: [position, index] of each sample that waits for its batch;
        - ``unreadable``: why each skipped image cannot be read, by file;
        - ``world_size``, ``batch_size``, ``aspect_ratio_grouping``;
        - ``origin``: what else determines the stream.
        """
        return {
            "seed": self._seed,
            "position": self._position,
            "waiting": [[key.position, key.index] for key in self._waiting],
            "unreadable": dict(self.unreadable),
            **self._layout,
            "origin": copy.deepcopy(self._origin),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state when iterating starts.

        If the number of processes, the batch size and the grouping are as in the run that saved it,
        each process loads its own state and the batches are exactly those that would have followed.
        If one of them differs, the stream continues at the same position, and samples that waited
        for their batch are dropped. If the number of processes differs, all must load the same
        state.

        Args:
            state: from :meth:`state_dict`.

        Raises:
            UserError: the state comes from other data sets, or another sampler or seed.
        """
        if "target" in state:
            raise UserError(
                "the resumed run had target images (MODEL.ADAPTATION.METHOD); resume it with the "
                "config that it was started with"
            )
        for name, value in self._origin.items():
            if value != state["origin"].get(name):
                raise UserError(
                    f"{name} is {value}, but the resumed run has "
                    f"{state['origin'].get(name)}; resume it with the config that it was started "
                    "with, or start another run in another OUTPUT_DIR"
                )
        self._seed = state["seed"]
        self._position = state["position"]
        self._waiting = [SampleKey(self._seed, *key) for key in state["waiting"]]
        self._unreadable.found = dict(state["unreadable"])
        changes = [
            f"{name}: {self._layout[key]} instead of {state[key]}"
            for key, name in _LAYOUT.items()
            if self._layout[key] != state[key]
        ]
        if changes:
            self._waiting = []
            logger.warning(
                "the training images continue at image %d of the stream, but not in the batches of "
                "the resumed run (%s); %d that waited for their batch are left out",
                self._position,
                ", ".join(changes),
                len(state["waiting"]),
            )
