"""The order in which training sees its images: endless, and a function of the seed only."""

from __future__ import annotations

import itertools
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import samplers as detectron2_samplers

from ddep.config_checks import check_probability
from ddep.data.class_presence import find_classes
from ddep.data.mapper_registry import mapper_class
from ddep.data.record import Record, annotated_objects
from ddep.errors import UserError

logger = logging.getLogger(__name__)

SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler", "ClassUniformSampler")
# Groups are drawn this many at a time. Changing the number changes the order.
_DRAWN_AT_ONCE = 1024


class ClassImages:
    """Pairs of an image and a class that it shows.

    Args:
        images: index of each pair's image, (P,) int64.
        classes: each pair's class, (P,) int64.
    """

    def __init__(self, images: np.ndarray, classes: np.ndarray) -> None:
        self.images = images
        self.classes = classes

    def __getitem__(self, pair: int) -> tuple[int, int]:
        """The index of the image, and the class."""
        return int(self.images[pair]), int(self.classes[pair])


class TrainSampler(ABC):
    """An endless stream of indices that depends only on a seed.

    Attributes:
        class_images: what indices beyond those of the images stand for, if there are any.
    """

    class_images: ClassImages | None = None

    @abstractmethod
    def indices(self, seed: int, start: int) -> Iterator[int]:
        """Yield the indices at the positions ``start``, ``start + 1``, ... of the seed's stream."""


class _PassSampler(TrainSampler):
    """Passes over the indices again and again, each time in another order.

    One pass is in memory at a time, as an array; passes before ``start`` are drawn and dropped.
    """

    @abstractmethod
    def _draw_pass(self, generator: torch.Generator) -> torch.Tensor:
        """The indices of the next pass, (N,), int32 or int64."""

    def indices(self, seed: int, start: int) -> Iterator[int]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = self._draw_pass(generator).numpy()
            yield from map(int, order[start:])
            start = max(0, start - len(order))
            del order  # to free its memory before the next one is drawn


class TrainingSampler(_PassSampler):
    """All indices in a random order, again and again.

    The same stream as detectron2's ``TrainingSampler``, which keeps it as a list of Python numbers.
    """

    def __init__(self, size: int) -> None:
        """
        Args:
            size: how many indices there are, positive and below 2^31.
        """
        self._size = size

    def _draw_pass(self, generator: torch.Generator) -> torch.Tensor:
        return torch.randperm(self._size, generator=generator, dtype=torch.int32)


class RepeatFactorTrainingSampler(_PassSampler):
    """Repeats each index in each pass by its repeat factor, on average.

    The same stream as detectron2's sampler of this name (LVIS, Gupta et al., 2019, arXiv
    1908.03195, appendix B.2; fractions are rounded at random in every pass).
    """

    def __init__(self, repeat_factors: torch.Tensor) -> None:
        """
        Args:
            repeat_factors: of each index, (N,) float32, at least 1.
        """
        self._whole = torch.trunc(repeat_factors)
        self._fraction = repeat_factors - self._whole

    def _draw_pass(self, generator: torch.Generator) -> torch.Tensor:
        rounded_up = torch.rand(len(self._fraction), generator=generator) < self._fraction
        indices = torch.repeat_interleave((self._whole + rounded_up).long())
        return indices[torch.randperm(len(indices), generator=generator)]


class GroupSampler(TrainSampler):
    """Draws a group by its weight, then takes the next index of that group.

    Each group is passed over in a random order, again and again: no index comes a second time
    before all others of its group have come once.
    """

    def __init__(self, groups: Sequence[Sequence[int]], weights: Sequence[float]) -> None:
        """
        Args:
            groups: the indices of each group, ranges or arrays, not empty; groups may overlap.
            weights: one per group, positive: a group's expected share of the stream is its weight
                divided by the sum of all.
        """
        self._groups = groups
        self._weights = torch.tensor(weights, dtype=torch.float64)

    def indices(self, seed: int, start: int) -> Iterator[int]:
        generator = torch.Generator().manual_seed(seed)
        # How often each group has been drawn before ``start``.
        drawn = torch.zeros(len(self._groups), dtype=torch.int64)
        for _ in range(start // _DRAWN_AT_ONCE):
            drawn += self._count(self._draw(generator))
        current = self._draw(generator)
        first, current = current.split(
            (start % _DRAWN_AT_ONCE, len(current) - start % _DRAWN_AT_ONCE)
        )
        drawn += self._count(first)
        seeds = np.random.SeedSequence(seed).spawn(len(self._groups))
        passes = [
            TrainingSampler(len(group)).indices(int(own.generate_state(1)[0]), skipped)
            for group, own, skipped in zip(self._groups, seeds, drawn.tolist(), strict=True)
        ]
        while True:
            for group in current.tolist():
                yield int(self._groups[group][next(passes[group])])
            current = self._draw(generator)

    def _draw(self, generator: torch.Generator) -> torch.Tensor:
        return torch.multinomial(
            self._weights, _DRAWN_AT_ONCE, replacement=True, generator=generator
        )

    def _count(self, drawn: torch.Tensor) -> torch.Tensor:
        return torch.bincount(drawn, minlength=len(self._groups))


def check_sampler_keys(cfg: CfgNode) -> None:
    """Raise :class:`UserError` unless sampler and mixing weights are possible and agree."""
    weights, names = cfg.DATASETS.TRAIN_WEIGHTS, cfg.DATASETS.TRAIN
    sampler = cfg.DATALOADER.SAMPLER_TRAIN
    if sampler not in SAMPLERS:
        raise UserError(
            f"DATALOADER.SAMPLER_TRAIN is {sampler!r}; expected one of {', '.join(SAMPLERS)}"
        )
    mapper = cfg.INPUT.DATASET_MAPPER_NAME
    if sampler == "ClassUniformSampler" and mapper_class(mapper).needs_labels is None:
        raise UserError(
            f"DATALOADER.SAMPLER_TRAIN is {sampler}, which needs labels, but denoising has none; "
            "expected TrainingSampler"
        )
    _check_class_uniform(cfg)
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


def class_uniform_keys(cfg: CfgNode) -> dict[str, Any]:
    """The keys of DATALOADER.CLASS_UNIFORM that the samples depend on; none if it is off."""
    keys = cfg.DATALOADER.CLASS_UNIFORM
    if not keys.SHARE:
        return {}
    return {f"DATALOADER.CLASS_UNIFORM.{name}": keys[name] for name in ("SHARE", "TILE_SIZE")}


def _check_class_uniform(cfg: CfgNode) -> None:
    keys, sampler = cfg.DATALOADER.CLASS_UNIFORM, cfg.DATALOADER.SAMPLER_TRAIN
    share, tile = keys.SHARE, keys.TILE_SIZE
    check_probability("DATALOADER.CLASS_UNIFORM.SHARE", share)
    if not (isinstance(tile, int) and tile >= 1):
        raise UserError(
            f"DATALOADER.CLASS_UNIFORM.TILE_SIZE is {tile!r}; expected a whole number of at least 1"
        )
    if share and sampler != "TrainingSampler":
        raise UserError(
            f"DATALOADER.CLASS_UNIFORM.SHARE is {share}, but DATALOADER.SAMPLER_TRAIN is "
            f"{sampler}; expected TrainingSampler, which the other images are drawn by"
        )
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if share and mapper_class(name).needs_labels != "sem_seg":
        raise UserError(
            f"DATALOADER.CLASS_UNIFORM.SHARE is {share}, but INPUT.DATASET_MAPPER_NAME is {name}, "
            "which reads no semantic labels; expected mask_former_semantic"
        )


def build_train_sampler(cfg: CfgNode, sets: Sequence[Sequence[Record]]) -> TrainSampler:
    """Build the sampler from ``DATALOADER.SAMPLER_TRAIN``, ``DATALOADER.CLASS_UNIFORM`` and
    ``DATASETS.TRAIN_WEIGHTS``.

    Args:
        cfg: the whole config.
        sets: the records of each training set; indices count through them in this order. Only
            samplers that need labels look at the records.

    Raises:
        UserError: see :func:`check_sampler_keys`; records without the necessary labels, or labels
            out of range.
    """
    check_sampler_keys(cfg)
    name = cfg.DATALOADER.SAMPLER_TRAIN
    sizes = [len(records) for records in sets]
    weights, share = cfg.DATASETS.TRAIN_WEIGHTS, cfg.DATALOADER.CLASS_UNIFORM.SHARE
    if name == "TrainingSampler" and not weights and not share:
        return TrainingSampler(sum(sizes))
    if not weights:
        sizes, weights = [sum(sizes)], (1.0,)
    ends = itertools.accumulate(sizes)
    parts = [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    if share:
        return _partly_class_uniform_sampler(cfg, _joined(sets), parts, weights)
    if name == "TrainingSampler":
        return GroupSampler(parts, weights)
    if name == "RepeatFactorTrainingSampler":
        return _repeat_factor_sampler(cfg, sets)
    return _class_uniform_sampler(cfg, _joined(sets), parts, weights)


def _joined(sets: Sequence[Sequence[Record]]) -> list[Record]:
    return [record for records in sets for record in records]


def _repeat_factor_sampler(
    cfg: CfgNode, sets: Sequence[Sequence[Record]]
) -> RepeatFactorTrainingSampler:
    if not all("annotations" in record for records in sets for record in records):
        raise UserError(
            f"DATALOADER.SAMPLER_TRAIN is {cfg.DATALOADER.SAMPLER_TRAIN}, which needs instance "
            "annotations; expected TrainingSampler for these data sets"
        )
    detectron2_sampler = detectron2_samplers.RepeatFactorTrainingSampler
    factors = detectron2_sampler.repeat_factors_from_category_frequency(
        [{"annotations": annotated_objects(record)} for record in _joined(sets)],
        cfg.DATALOADER.REPEAT_THRESHOLD,
    )
    return RepeatFactorTrainingSampler(factors)


def _class_uniform_sampler(
    cfg: CfgNode, records: list[Record], parts: Sequence[range], weights: Sequence[float]
) -> GroupSampler:
    """Each group is the images of one part that show one class."""
    groups: list[np.ndarray] = []
    group_weights: list[float] = []
    shown = _by_class(cfg, "DATALOADER.SAMPLER_TRAIN is ClassUniformSampler", records, parts)
    for found, weight in zip(shown, weights, strict=True):
        groups += found.values()
        group_weights += [weight / len(found)] * len(found)
    return GroupSampler(groups, group_weights)


def _partly_class_uniform_sampler(
    cfg: CfgNode, records: list[Record], parts: Sequence[range], weights: Sequence[float]
) -> GroupSampler:
    """Each part has a group of all its images, and one of each class with the pairs that show it.

    The indices of pairs come after those of the images.
    """
    share = cfg.DATALOADER.CLASS_UNIFORM.SHARE
    key = f"DATALOADER.CLASS_UNIFORM.SHARE is {share}"
    groups: list[Sequence[int]] = []
    group_weights: list[float] = []
    images: list[np.ndarray] = []
    classes: list[np.ndarray] = []
    end = len(records)
    shown = _by_class(cfg, key, records, parts)
    for part, found, weight in zip(parts, shown, weights, strict=True):
        if share < 1:
            groups.append(part)
            group_weights.append(weight * (1 - share))
        for class_id, of_class in found.items():
            groups.append(range(end, end + len(of_class)))
            group_weights.append(weight * share / len(found))
            images.append(of_class)
            classes.append(np.full(len(of_class), class_id))
            end += len(of_class)
    sampler = GroupSampler(groups, group_weights)
    sampler.class_images = ClassImages(np.concatenate(images), np.concatenate(classes))
    return sampler


def _by_class(
    cfg: CfgNode, key: str, records: list[Record], parts: Sequence[range]
) -> list[dict[int, np.ndarray]]:
    """For each part, the indices of the images that show each class.

    Args:
        key: what asks for it, for messages.
    """
    classes = find_classes(cfg, records)
    counts = np.bincount(np.concatenate(classes), minlength=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    shown = np.flatnonzero(counts)
    if not len(shown):
        raise UserError(
            f"{key}, but no training image shows any class; expected labels that are not all void"
        )
    rarest = shown[counts[shown].argmin()]
    logger.info(
        f"{key}: {len(shown)} of {len(counts)} classes are in the {len(records)} training images; "
        f"the rarest, class {rarest}, is in {counts[rarest]}; "
        f"{sum(len(found) == 0 for found in classes)} images show none and are never drawn for one"
    )
    of_parts = []
    for part, name in zip(parts, cfg.DATASETS.TRAIN, strict=False):
        found = group_by_class(classes[part.start : part.stop])
        if not found:
            raise UserError(
                f"{key}, but no image of data set {name} shows any class; take it out of "
                "DATASETS.TRAIN"
            )
        of_parts.append({class_id: part.start + images for class_id, images in found.items()})
    return of_parts


def group_by_class(classes: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    """Map each class that occurs to the indices of the images that show it, (N,) int64.

    Args:
        classes: for each image the classes that it shows, without repetition.
    """
    images = np.repeat(np.arange(len(classes)), [len(found) for found in classes])
    flat = np.concatenate([np.empty(0, dtype=np.int64), *classes])
    order = np.argsort(flat, kind="stable")
    shown, starts = np.unique(flat[order], return_index=True)
    return dict(zip(shown.tolist(), np.split(images[order], starts[1:]), strict=False))
