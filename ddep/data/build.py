"""Data loaders for training and evaluation."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.build import filter_images_with_only_crowd_annotations
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ddep.data.labels import (
    LABELLED_IMAGES,
    check_label_keys,
    choose_labelled,
    limits_labels,
    write_label_list,
)
from ddep.data.mappers import build_mapper
from ddep.data.samplers import build_train_sampler, check_sampler_keys
from ddep.data.unreadable import ReadableSamples, TrainLoader
from ddep.errors import UserError, one_line

Record = dict[str, Any]

logger = logging.getLogger(__name__)


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
    sets = _load_training_sets(cfg)
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
    [records] = _load_records("DATASETS.TEST", [dataset_name], filter_empty=False)
    return build_detection_test_loader(
        [{**record, "position": position} for position, record in enumerate(records)],
        mapper=build_mapper(cfg, is_train=False),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def check_training_sets(cfg: CfgNode) -> None:
    """Check what ``cfg`` says of its training sets, as far as it can be seen without loading them.

    Raises:
        UserError: sets of different classes; sampler, mixing weights or numbers of labels that are
            not possible.
    """
    check_label_keys(cfg)
    check_sampler_keys(cfg)
    if not _is_denoising(cfg):
        _check_same_classes(cfg.DATASETS.TRAIN)


def _is_denoising(cfg: CfgNode) -> bool:
    """Whether training looks at no annotation, so that images without any are as good."""
    return cfg.INPUT.DATASET_MAPPER_NAME == "ddep_denoising"


def _load_training_sets(cfg: CfgNode) -> list[list[Record]]:
    """The records of each training set that training uses."""
    names = cfg.DATASETS.TRAIN
    filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS and not _is_denoising(cfg)
    if _is_denoising(cfg) or not limits_labels(cfg):
        return _load_records("DATASETS.TRAIN", names, filter_empty)
    # An image in which nothing was found has been labelled, too: it counts before it is left out.
    sets = _load_records("DATASETS.TRAIN", names, filter_empty=False)
    chosen = choose_labelled(cfg, names, sets)
    path = os.path.join(cfg.OUTPUT_DIR, LABELLED_IMAGES)
    if comm.is_main_process():
        write_label_list(path, names, chosen, sets)
    for name, records, everything in zip(names, chosen, sets, strict=True):
        logger.info(f"{name}: {len(records)} of {len(everything)} images count as labelled: {path}")
    if not filter_empty:
        return chosen
    return [_without_empty(name, records) for name, records in zip(names, chosen, strict=True)]


def _without_empty(name: str, records: list[Record]) -> list[Record]:
    if "annotations" in records[0]:
        records = filter_images_with_only_crowd_annotations(records)
    if not records:
        raise UserError(
            f"none of the images of data set {name} that count as labelled shows an object; raise "
            "DATASETS.LABEL_FRACTION or LABEL_COUNT, or change LABEL_SEED or LABEL_LIST"
        )
    return records


def _load_records(key: str, names: Sequence[str], filter_empty: bool) -> list[list[Record]]:
    """The records of each data set; not all need to have labels."""
    if not names:
        raise UserError(f"{key} is empty; name at least one data set")
    sets = []
    for name in names:
        if name not in DatasetCatalog:
            raise UserError(f"{key} has {name!r}, which is not a registered data set")
        try:
            sets.append(get_detection_dataset_dicts(name, filter_empty=filter_empty))
        except (AssertionError, KeyError, OSError, TypeError, ValueError) as error:
            raise UserError(
                f"{key}: data set {name} cannot be loaded: {one_line(error)}; data are looked for "
                "under $DETECTRON2_DATASETS, or ./datasets if that is not set; "
                f"tools/check-dataset.py {name} says more of damaged ones"
            ) from error
    return sets


def _check_same_classes(names: Sequence[str]) -> None:
    for key in ("thing_classes", "stuff_classes"):
        for name in names[1:]:
            first, other = (MetadataCatalog.get(n).get(key, []) for n in (names[0], name))
            if list(first) != list(other):
                raise UserError(
                    f"DATASETS.TRAIN has {names[0]} and {name}, whose {key} differ; train on data "
                    "sets of the same classes in the same order"
                )
