"""Data loaders for training and evaluation."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, MapDataset
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import BatchSampler, DataLoader

from ddep.data.mappers import build_mapper
from ddep.data.records import check_training_sets, load_records, load_training_sets
from ddep.data.samplers import build_train_sampler
from ddep.data.samples import TrainingSamples
from ddep.data.steady_loader import SteadyLoader
from ddep.data.train_loader import TrainLoader
from ddep.errors import UserError


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
    batch_size, processes = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    if batch_size <= 0 or batch_size % processes:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {batch_size}; expected a multiple of the number of "
            f"processes, {processes}"
        )
    mapper = build_mapper(cfg, is_train=True)
    check_training_sets(cfg)
    sets = load_training_sets(cfg)
    return TrainLoader(
        TrainingSamples(sets, mapper, cfg.INPUT.MAX_UNREADABLE),
        build_train_sampler(cfg, sets),
        seed=cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed(),
        batch_size=batch_size,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        origin={
            "SEED": cfg.SEED,
            "DATASETS.TRAIN": list(cfg.DATASETS.TRAIN),
            "number of training images in each set": [len(records) for records in sets],
            "DATASETS.TRAIN_WEIGHTS": list(cfg.DATASETS.TRAIN_WEIGHTS),
            "DATALOADER.SAMPLER_TRAIN": cfg.DATALOADER.SAMPLER_TRAIN,
            "DATALOADER.REPEAT_THRESHOLD": cfg.DATALOADER.REPEAT_THRESHOLD,
        },
    )


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """Build the loader that evaluates one data set: its images in order, one per batch.

    The mapper finds an image's index in the data set under ``position``. An image that cannot be
    read ends the iteration with an ``UnreadableImageError``.

    Raises:
        UserError: no such data set or no image in it; an impossible value in the config.
    """
    [records] = load_records("DATASETS.TEST", [dataset_name], filter_empty=False)
    samples = MapDataset(
        DatasetFromList(
            [{**record, "position": position} for position, record in enumerate(records)],
            copy=False,
        ),
        build_mapper(cfg, is_train=False),
    )
    batches = BatchSampler(InferenceSampler(len(samples)), 1, drop_last=False)
    return SteadyLoader(samples, batches, cfg.DATALOADER.NUM_WORKERS)
