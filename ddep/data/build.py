"""Data loaders for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterable

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ddep.data.mappers import build_mapper
from ddep.data.records import Record, check_training_sets, load_records, load_training_sets
from ddep.data.samplers import build_train_sampler
from ddep.data.unreadable import ReadableSamples, TrainLoader
from ddep.errors import UserError


def build_train_loader(cfg: CfgNode) -> Iterable[list[Record]]:
    """Build the endless loader of training batches.

    The order of the images follows from ``SEED`` alone if that is not negative. Where the
    ``DATASETS.LABEL_*`` keys limit the labels, the main process writes the images that were chosen
    to ``OUTPUT_DIR/labelled_images.txt``; denoising uses all images. Images that cannot
    be read are replaced by others; up to ``INPUT.MAX_UNREADABLE`` of them in each process are
    named in the log, more end the iteration with a :class:`UserError`.

    Returns:
        An iterable over lists of ``SOLVER.IMS_PER_BATCH / processes`` samples; see
        :mod:`ddep.data.mappers` for what a sample holds.

    Raises:
        UserError: no such data set or no image in it; a value of the config that does not fit.
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
    limit = cfg.INPUT.MAX_UNREADABLE
    loader = build_detection_train_loader(
        ReadableSamples([record for records in sets for record in records], mapper, limit),
        mapper=None,
        sampler=build_train_sampler(cfg, sets),
        total_batch_size=batch_size,
        aspect_ratio_grouping=cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    return TrainLoader(loader, limit)


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """Build the loader of one data set's images, one a batch, in their order.

    The mapper finds an image's index in the data set under ``position``. An image that cannot be
    read ends the iteration with an ``UnreadableImageError``.

    Raises:
        UserError: no such data set or no image in it; a value of the config that does not fit.
    """
    [records] = load_records("DATASETS.TEST", [dataset_name], filter_empty=False)
    return build_detection_test_loader(
        [{**record, "position": position} for position, record in enumerate(records)],
        mapper=build_mapper(cfg, is_train=False),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
