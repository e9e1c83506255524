"""Data loaders for training and evaluation."""

from __future__ import annotations

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
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Sampler

from ddep.data.mappers import build_mapper
from ddep.data.unreadable import ReadableSamples, TrainLoader
from ddep.errors import UserError, one_line

Record = dict[str, Any]


def build_train_loader(cfg: CfgNode) -> Iterable[list[Record]]:
    """Build the endless loader of training batches.

    The order of the images follows from ``SEED`` alone if that is not negative. Images that cannot
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
    # Denoising looks at no annotation, so images without any are as good as others.
    denoising = cfg.INPUT.DATASET_MAPPER_NAME == "ddep_denoising"
    filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS and not denoising
    if not denoising:
        _check_same_classes(cfg.DATASETS.TRAIN)
    records = _load_records("DATASETS.TRAIN", cfg.DATASETS.TRAIN, filter_empty)
    limit = cfg.INPUT.MAX_UNREADABLE
    loader = build_detection_train_loader(
        ReadableSamples(records, mapper, limit),
        mapper=None,
        sampler=_build_sampler(cfg, records),
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
    records = _load_records("DATASETS.TEST", [dataset_name], filter_empty=False)
    return build_detection_test_loader(
        [{**record, "position": position} for position, record in enumerate(records)],
        mapper=build_mapper(cfg, is_train=False),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def _load_records(key: str, names: Sequence[str], filter_empty: bool) -> list[Record]:
    """The records of all data sets, one after the other; not all need to have labels."""
    if not names:
        raise UserError(f"{key} is empty; name at least one data set")
    records = []
    for name in names:
        if name not in DatasetCatalog:
            raise UserError(f"{key} has {name!r}, which is not a registered data set")
        try:
            records += get_detection_dataset_dicts(name, filter_empty=filter_empty)
        except (AssertionError, KeyError, OSError, TypeError, ValueError) as error:
            raise UserError(
                f"{key}: data set {name} cannot be loaded: {one_line(error)}; data are looked for "
                "under $DETECTRON2_DATASETS, or ./datasets if that is not set; "
                f"tools/check-dataset.py {name} says more of damaged ones"
            ) from error
    return records


def _check_same_classes(names: Sequence[str]) -> None:
    for key in ("thing_classes", "stuff_classes"):
        for name in names[1:]:
            first, other = (MetadataCatalog.get(n).get(key, []) for n in (names[0], name))
            if list(first) != list(other):
                raise UserError(
                    f"DATASETS.TRAIN has {names[0]} and {name}, whose {key} differ; train on data "
                    "sets of the same classes in the same order"
                )


def _build_sampler(cfg: CfgNode, records: list[Record]) -> Sampler:
    seed = cfg.SEED if cfg.SEED >= 0 else None
    name = cfg.DATALOADER.SAMPLER_TRAIN
    if name == "TrainingSampler":
        return TrainingSampler(len(records), seed=seed)
    if name == "RepeatFactorTrainingSampler":
        if not all("annotations" in record for record in records):
            raise UserError(
                f"DATALOADER.SAMPLER_TRAIN is {name}, which needs instance annotations; "
                "expected TrainingSampler for these data sets"
            )
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            records, cfg.DATALOADER.REPEAT_THRESHOLD
        )
        return RepeatFactorTrainingSampler(factors, seed=seed)
    raise UserError(
        f"DATALOADER.SAMPLER_TRAIN is {name!r}; expected TrainingSampler or "
        "RepeatFactorTrainingSampler"
    )
