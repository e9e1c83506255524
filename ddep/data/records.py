"""Load and check the data sets that a config names."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
)
from detectron2.utils import comm

from ddep.data.datasets.label_kinds import labelled_for, may_be_labelled_for
from ddep.data.labels import (
    LABELLED_IMAGES,
    check_label_keys,
    choose_labelled,
    limits_labels,
    write_label_list,
)
from ddep.data.mapper_registry import MAPPERS, mapper_class
from ddep.data.record import Record, annotated_objects, as_images
from ddep.data.samplers import check_sampler_keys
from ddep.errors import UserError, one_line

logger = logging.getLogger(__name__)


def check_training_sets(cfg: CfgNode) -> None:
    """Check what ``cfg`` says about its training sets, without loading them.

    Raises:
        UserError: sets with different classes, or without the labels that the mapper needs; an
            impossible sampler, mixing weight or number of labels.
    """
    check_label_keys(cfg)
    check_sampler_keys(cfg)
    check_labels(cfg)
    if _uses_labels(cfg):
        _check_same_classes(cfg.DATASETS.TRAIN)


def check_labels(cfg: CfgNode) -> None:
    """Raise :class:`UserError` if a training set is not labelled for what the mapper needs.

    Data sets that do not say what they are labelled for pass.
    """
    needed = mapper_class(cfg.INPUT.DATASET_MAPPER_NAME).needs_labels
    for name in cfg.DATASETS.TRAIN:
        if needed and MetadataCatalog.get(name).get("labels_are_secret", False):
            raise UserError(
                f"DATASETS.TRAIN has {name}, whose labels only its server has; choose another set "
                "to train on"
            )
        if needed is None or may_be_labelled_for(name, needed):
            continue
        labels = labelled_for(name)
        suitable = [key for key, mapper in MAPPERS.items() if mapper.needs_labels in labels]
        suitable = suitable or [key for key, m in MAPPERS.items() if m.needs_labels is None]
        raise UserError(
            f"DATASETS.TRAIN has {name}, which has labels for {' and '.join(labels) or 'nothing'}, "
            f"but INPUT.DATASET_MAPPER_NAME {cfg.INPUT.DATASET_MAPPER_NAME} needs labels for "
            f"{needed}; expected {' or '.join(suitable)} to train on it"
        )


def _uses_labels(cfg: CfgNode) -> bool:
    """Whether training uses labels; if not, images without any are as good."""
    return mapper_class(cfg.INPUT.DATASET_MAPPER_NAME).needs_labels is not None


def load_training_sets(cfg: CfgNode) -> list[Sequence[Record]]:
    """Load the records of each training set: lists, or sequences that make records when asked.

    If the ``DATASETS.LABEL_*`` keys limit the labels, only the chosen records are returned, and the
    main process writes their images to ``OUTPUT_DIR/labelled_images.txt``; denoising uses all
    images, and all frames of videos.

    Raises:
        UserError: no such data set or no image in it; an impossible limit of labels.
    """
    names = cfg.DATASETS.TRAIN
    if not _uses_labels(cfg):
        return [as_images(r) for r in load_records("DATASETS.TRAIN", names, filter_empty=False)]
    filter_empty = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    if not limits_labels(cfg):
        return load_records("DATASETS.TRAIN", names, filter_empty)
    # Images without objects have also been labelled: they count before they are left out.
    sets = load_records("DATASETS.TRAIN", names, filter_empty=False)
    chosen = choose_labelled(cfg, names, sets)
    path = os.path.join(cfg.OUTPUT_DIR, LABELLED_IMAGES)
    if comm.is_main_process():
        write_label_list(path, names, chosen, sets)
    for name, records, everything in zip(names, chosen, sets, strict=True):
        logger.info(f"{name}: {len(records)} of {len(everything)} images count as labelled: {path}")
    if not filter_empty:
        return chosen
    return [_without_empty(name, records) for name, records in zip(names, chosen, strict=True)]


def check_target_sets(cfg: CfgNode) -> None:
    """Raise :class:`UserError` if a target set is trained on with all of its labels."""
    for name in cfg.DATASETS.TARGET:
        if name in cfg.DATASETS.TRAIN and not limits_labels(cfg):
            raise UserError(
                f"DATASETS.TARGET has {name}, which is in DATASETS.TRAIN with all of its labels; "
                "name another set, or limit the labels (DATASETS.LABEL_FRACTION, LABEL_COUNT or "
                "LABEL_LIST): the other images are the target then"
            )


def load_target_sets(cfg: CfgNode) -> list[Sequence[Record]]:
    """Load the records of each set in ``DATASETS.TARGET``, without those that training has labels
    of.

    Raises:
        UserError: no such data set, or no image in it.
    """
    check_target_sets(cfg)
    names = cfg.DATASETS.TARGET
    sets = load_records("DATASETS.TARGET", names, filter_empty=False)
    return [
        _without_labelled(cfg, name, records) if name in cfg.DATASETS.TRAIN else records
        for name, records in zip(names, sets, strict=True)
    ]


def _without_labelled(cfg: CfgNode, name: str, records: Sequence[Record]) -> Sequence[Record]:
    train = cfg.DATASETS.TRAIN
    sets = load_records("DATASETS.TRAIN", train, filter_empty=False)
    chosen = choose_labelled(cfg, train, sets)[list(train).index(name)]
    labelled = {record["file_name"] for record in chosen}
    others = [record for record in records if record["file_name"] not in labelled]
    if not others:
        raise UserError(
            f"DATASETS.TARGET has {name}, but all of its images count as labelled; lower "
            "DATASETS.LABEL_FRACTION or LABEL_COUNT, or name another set"
        )
    logger.info(f"{name}: {len(others)} of {len(records)} images are the target")
    return others


def _without_empty(name: str, records: Sequence[Record]) -> Sequence[Record]:
    if "annotations" in records[0]:
        records = _with_objects(records)
    if not records:
        raise UserError(
            f"no image of data set {name} that counts as labelled shows an object; raise "
            "DATASETS.LABEL_FRACTION or LABEL_COUNT, or change LABEL_SEED or LABEL_LIST"
        )
    return records


def load_records(key: str, names: Sequence[str], filter_empty: bool) -> list[Sequence[Record]]:
    """Load the records of each data set; none may be empty.

    Sequences that are not lists, such as those of image folders, stay as they are: millions of
    records are made from an index when they are needed.

    Args:
        key: the config key that names the data sets, for errors.
        names: of the data sets.
        filter_empty: whether to leave out images without objects, in data sets with annotations.

    Raises:
        UserError: no such data set, or it cannot be loaded.
    """
    if not names:
        raise UserError(f"{key} is empty; name at least one data set")
    sets = []
    for name in names:
        if name not in DatasetCatalog:
            raise UserError(f"{key} has {name!r}, which is not a registered data set")
        try:
            sets.append(_load(name, filter_empty))
        except (AssertionError, KeyError, OSError, TypeError, ValueError) as error:
            raise UserError(
                f"{key}: data set {name} cannot be loaded: {one_line(error)}; data are looked for "
                "under $DETECTRON2_DATASETS, or ./datasets if that is not set; "
                f"tools/check-dataset.py {name} says more about damaged ones"
            ) from error
    return sets


def _load(name: str, filter_empty: bool) -> Sequence[Record]:
    """Like detectron2's ``get_detection_dataset_dicts``, but without making a list."""
    records: Sequence[Record] = DatasetCatalog.get(name)
    if not records:
        raise ValueError("it has no images")
    if "annotations" not in records[0]:
        return records
    if filter_empty:
        records = _with_objects(records)
    if not records:
        raise ValueError("none of its images shows an object")
    classes = MetadataCatalog.get(name).get("thing_classes")
    if classes is not None:
        objects = [{"annotations": annotated_objects(record)} for record in records]
        print_instances_class_histogram(objects, classes)
    return records


def _with_objects(records: Sequence[Record]) -> Sequence[Record]:
    """Those that show an object which is no crowd."""
    if "file_names" not in records[0]:
        return filter_images_with_only_crowd_annotations(records)
    return [r for r in records if any(not o.get("iscrowd", 0) for o in annotated_objects(r))]


def _check_same_classes(names: Sequence[str]) -> None:
    for key in ("thing_classes", "stuff_classes", "classes"):
        for name in names[1:]:
            first, other = (MetadataCatalog.get(n).get(key, []) for n in (names[0], name))
            if list(first) != list(other):
                raise UserError(
                    f"DATASETS.TRAIN has {names[0]} and {name}, whose {key} differ; train on data "
                    "sets of the same classes in the same order"
                )
