"""Data loaders for training and evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import BatchSampler, DataLoader

from ddep.data.mappers import build_mapper, build_target_mapper, mapper_class
from ddep.data.paired_loader import PairedLoader
from ddep.data.record import Record, as_images
from ddep.data.records import (
    check_training_sets,
    load_records,
    load_target_sets,
    load_training_sets,
)
from ddep.data.samplers import (
    GroupSampler,
    TrainingSampler,
    TrainSampler,
    build_train_sampler,
    class_uniform_keys,
)
from ddep.data.samples import TrainingPairs, TrainingSamples
from ddep.data.steady_loader import SteadyLoader
from ddep.data.train_loader import TrainLoader
from ddep.errors import UserError

# Makes the seed of the target images from that of the labelled ones.
_TARGET_STREAM = 1


def build_train_loader(cfg: CfgNode) -> TrainLoader:
    """Build the endless loader of training batches.

    Order, augmentation and noise of the images depend only on ``SEED`` (if not negative), not on
    the number of processes and workers. If the ``DATASETS.LABEL_*`` keys limit the labels, the main
    process writes the chosen images to ``OUTPUT_DIR/labelled_images.txt``; denoising uses all
    images. Other images replace those that cannot be read; each process names up to
    ``INPUT.MAX_UNREADABLE`` of them in the log, and one more ends the iteration with a
    :class:`UserError`.

    Returns:
        An iterable over lists of ``SOLVER.IMS_PER_BATCH / processes`` samples; see
        :mod:`ddep.data.mappers` for what a sample holds. Its ``state_dict`` and
        ``load_state_dict`` resume it exactly.

    Raises:
        UserError: no such data set or no image in it; an impossible value in the config.
    """
    _check_batch_size("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size())
    mapper = build_mapper(cfg, is_train=True)
    check_training_sets(cfg)
    sets = load_training_sets(cfg)
    sampler = build_train_sampler(cfg, sets)
    return TrainLoader(
        TrainingSamples(sets, mapper, cfg.INPUT.MAX_UNREADABLE, sampler.class_images),
        sampler,
        seed=cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed(),
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        origin={
            "SEED": cfg.SEED,
            "DATASETS.TRAIN": list(cfg.DATASETS.TRAIN),
            "number of training images in each set": [len(records) for records in sets],
            "DATASETS.TRAIN_WEIGHTS": list(cfg.DATASETS.TRAIN_WEIGHTS),
            "DATALOADER.SAMPLER_TRAIN": cfg.DATALOADER.SAMPLER_TRAIN,
            "DATALOADER.REPEAT_THRESHOLD": cfg.DATALOADER.REPEAT_THRESHOLD,
            **class_uniform_keys(cfg),
        },
    )


def build_paired_loader(
    cfg: CfgNode,
    target_mapper: str,
    in_pairs: bool,
    weigh: Callable[[CfgNode, Sequence[Sequence[Record]]], np.ndarray | None],
) -> PairedLoader:
    """Build the endless loader of batches that have target images beside the labelled ones.

    Both streams are as in :func:`build_train_loader`, with ``DATALOADER.NUM_WORKERS`` workers each;
    their random numbers have nothing in common.

    Args:
        cfg: the whole config.
        target_mapper: the registered name of the mapper of ``DATASETS.TARGET``.
        in_pairs: whether target images come in pairs, see :class:`TrainingPairs`.
        weigh: from ``cfg`` and the records of each target set, how often each image is drawn,
            (N,) through all sets; None: all in turn.

    Returns:
        An iterable over lists of ``SOLVER.IMS_PER_BATCH / processes`` labelled samples and
        ``SOLVER.TARGET_IMS_PER_BATCH / processes`` target samples.

    Raises:
        UserError: no such data set or no image in it; an impossible value in the config.
    """
    source = build_train_loader(cfg)
    parts = cfg.SOLVER.ACCUMULATION_STEPS
    batch_size = target_batch_size(cfg)
    images = 2 if in_pairs else 1
    _check_batch_size(
        "SOLVER.TARGET_IMS_PER_BATCH", batch_size, images * parts * comm.get_world_size()
    )
    sets = load_target_sets(cfg)
    samples = TrainingPairs if in_pairs else TrainingSamples
    mapper = build_target_mapper(cfg, target_mapper)
    weights = weigh(cfg, sets)
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    target = TrainLoader(
        samples(sets, mapper, cfg.INPUT.MAX_UNREADABLE),
        _target_sampler(sum(map(len, sets)), weights),
        seed=int(np.random.SeedSequence((seed, _TARGET_STREAM)).generate_state(1)[0]),
        batch_size=batch_size // images,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        aspect_ratio_grouping=False,
        origin={
            "SEED": cfg.SEED,
            "DATASETS.TARGET": list(cfg.DATASETS.TARGET),
            "number of target images in each set": [len(records) for records in sets],
            "checksum of the weights of target images": _checksum(weights),
        },
    )
    return PairedLoader(source, target, parts)


def _target_sampler(size: int, weights: np.ndarray | None) -> TrainSampler:
    if weights is None:
        return TrainingSampler(size)
    return GroupSampler(np.arange(size)[:, None], weights)


def _checksum(weights: np.ndarray | None) -> str | None:
    return None if weights is None else hashlib.sha256(weights.tobytes()).hexdigest()


def target_batch_size(cfg: CfgNode) -> int:
    """The number of target images in each step, of all processes together."""
    return cfg.SOLVER.TARGET_IMS_PER_BATCH or cfg.SOLVER.IMS_PER_BATCH


def _check_batch_size(key: str, size: int, divisor: int) -> None:
    if size <= 0 or size % divisor:
        raise UserError(f"{key} is {size}; expected a multiple of {divisor}")


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """Build the loader that evaluates one data set: its images (or videos, except for denoising)
    in order, one per batch.

    The mapper finds an image's index in the data set under ``position``. An image that cannot be
    read ends the iteration with an ``UnreadableImageError``.

    Raises:
        UserError: no such data set or no image in it; an impossible value in the config.
    """
    [records] = load_records("DATASETS.TEST", [dataset_name], filter_empty=False)
    if mapper_class(cfg.INPUT.DATASET_MAPPER_NAME).needs_labels is None:
        records = as_images(records)
    samples = MapDataset(
        DatasetFromList(
            [{**record, "position": position} for position, record in enumerate(records)],
            copy=False,
        ),
        build_mapper(cfg, is_train=False),
    )
    batches = BatchSampler(InferenceSampler(len(samples)), 1, drop_last=False)
    return SteadyLoader(samples, batches, cfg.DATALOADER.NUM_WORKERS)
