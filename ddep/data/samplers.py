"""The order in which training sees its images: endless, seeded, shared out to the processes."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import Sampler

from ddep.data.class_presence import find_classes
from ddep.errors import UserError

Record = dict[str, Any]

logger = logging.getLogger(__name__)

SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler", "ClassUniformSampler")
# Groups are drawn this many at a time. Another number gives another order.
_DRAWN_AT_ONCE = 1024


class GroupSampler(Sampler[int]):
    """An endless stream of indices: draws a group by its weight, then goes on in that group.

    Each group is passed through in a random order, again and again, so that no index of it comes a
    second time before all have come once. Like detectron2's ``TrainingSampler``, all processes make
    the same stream, and each takes every N-th index of it.
    """

    def __init__(
        self, groups: Sequence[np.ndarray], weights: Sequence[float], seed: int | None = None
    ) -> None:
        """
        Args:
            groups: the indices of each group, (N,) int64, N > 0; groups may overlap.
            weights: one a group, positive: the expected share of the group in the stream is its
                weight divided by the sum of all.
            seed: the same in all processes; None draws one, which they share.
        """
        self._groups = [torch.from_numpy(group) for group in groups]
        self._weights = torch.tensor(weights, dtype=torch.float64)
        self._seed = comm.shared_random_seed() if seed is None else seed
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(self._stream(), self._rank, None, self._world_size)

    def _stream(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        passes = [_pass_endlessly(group, generator) for group in self._groups]
        while True:
            drawn = torch.multinomial(
                self._weights, _DRAWN_AT_ONCE, replacement=True, generator=generator
            )
            for group in drawn.tolist():
                yield next(passes[group])


def _pass_endlessly(group: torch.Tensor, generator: torch.Generator) -> Iterator[int]:
    while True:
        order = torch.randperm(len(group), generator=generator)
        yield from map(int, group[order].numpy())


def check_sampler_keys(cfg: CfgNode) -> None:
    """Raise :class:`UserError` unless sampler and mixing weights are possible, also together."""
    weights, names = cfg.DATASETS.TRAIN_WEIGHTS, cfg.DATASETS.TRAIN
    sampler = cfg.DATALOADER.SAMPLER_TRAIN
    if sampler not in SAMPLERS:
        raise UserError(
            f"DATALOADER.SAMPLER_TRAIN is {sampler!r}; expected one of {', '.join(SAMPLERS)}"
        )
    if sampler == "ClassUniformSampler" and cfg.INPUT.DATASET_MAPPER_NAME == "ddep_denoising":
        raise UserError(
            f"DATALOADER.SAMPLER_TRAIN is {sampler}, which needs labels, but denoising has none; "
            "expected TrainingSampler"
        )
    if not weights:
        return
    if len(weights) != len(names):
        raise UserError(
            f"DATASETS.TRAIN_WEIGHTS has {len(weights)} numbers and DATASETS.TRAIN has "
            f"{len(names)} data sets; expected one number for each, or none"
        )
    if not all(isinstance(w, (int, float)) and 0 < w < math.inf for w in weights):
        raise UserError(f"DATASETS.TRAIN_WEIGHTS is {weights}; expected positive numbers")
    if sampler == "RepeatFactorTrainingSampler":
        raise UserError(
            f"DATASETS.TRAIN_WEIGHTS is given, but DATALOADER.SAMPLER_TRAIN is {sampler}; expected "
            "TrainingSampler or ClassUniformSampler with it"
        )


def build_train_sampler(cfg: CfgNode, sets: Sequence[list[Record]]) -> Sampler[int]:
    """Make the sampler that ``DATALOADER.SAMPLER_TRAIN`` and ``DATASETS.TRAIN_WEIGHTS`` call for.

    Args:
        cfg: the whole config.
        sets: the records of each training set; indices count through them in this order.

    Raises:
        UserError: see :func:`check_sampler_keys`; records without the labels that are needed, or
            labels that are out of range.
    """
    check_sampler_keys(cfg)
    seed = cfg.SEED if cfg.SEED >= 0 else None
    name = cfg.DATALOADER.SAMPLER_TRAIN
    sizes = [len(records) for records in sets]
    weights = cfg.DATASETS.TRAIN_WEIGHTS
    if name == "TrainingSampler" and not weights:
        return TrainingSampler(sum(sizes), seed=seed)
    if not weights:
        sizes, weights = [sum(sizes)], (1.0,)
    ends = np.cumsum(sizes)
    parts = [np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    if name == "TrainingSampler":
        return GroupSampler(parts, weights, seed)
    records = [record for records in sets for record in records]
    if name == "ClassUniformSampler":
        return _class_uniform_sampler(cfg, records, parts, weights, seed)
    if not all("annotations" in record for record in records):
        raise UserError(
            f"DATALOADER.SAMPLER_TRAIN is {name}, which needs instance annotations; "
            "expected TrainingSampler for these data sets"
        )
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        records, cfg.DATALOADER.REPEAT_THRESHOLD
    )
    return RepeatFactorTrainingSampler(factors, seed=seed)


def _class_uniform_sampler(
    cfg: CfgNode,
    records: list[Record],
    parts: Sequence[np.ndarray],
    weights: Sequence[float],
    seed: int | None,
) -> GroupSampler:
    """Groups are the images that show a class, of each part by itself."""
    classes = find_classes(cfg, records)
    counts = np.bincount(np.concatenate(classes), minlength=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    shown = np.flatnonzero(counts)
    if not len(shown):
        raise UserError(
            "DATALOADER.SAMPLER_TRAIN is ClassUniformSampler, but no training image shows any "
            "class; expected labels that are not all void"
        )
    rarest = shown[counts[shown].argmin()]
    logger.info(
        f"ClassUniformSampler: {len(shown)} of {len(counts)} classes are in the {len(records)} "
        f"training images; the rarest, class {rarest}, is in {counts[rarest]}; "
        f"{sum(len(found) == 0 for found in classes)} images show none and are never drawn"
    )
    groups: list[np.ndarray] = []
    group_weights: list[float] = []
    for part, weight, name in zip(parts, weights, cfg.DATASETS.TRAIN, strict=False):
        found = group_by_class([classes[i] for i in part])
        if not found:
            raise UserError(
                f"DATALOADER.SAMPLER_TRAIN is ClassUniformSampler, but no image of data set {name} "
                "shows any class; take it out of DATASETS.TRAIN"
            )
        groups += [part[images] for images in found.values()]
        group_weights += [weight / len(found)] * len(found)
    return GroupSampler(groups, group_weights, seed)


def group_by_class(classes: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """The images, (N,) int64, that show each class that any of them shows.

    Args:
        classes: those that each image shows, without repetition.
    """
    images = np.repeat(np.arange(len(classes)), [len(found) for found in classes])
    flat = np.concatenate([np.empty(0, dtype=np.int64), *classes])
    order = np.argsort(flat, kind="stable")
    shown, starts = np.unique(flat[order], return_index=True)
    return dict(zip(shown.tolist(), np.split(images[order], starts[1:]), strict=False))
