"""Find the classes that each training image shows."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils import comm
from tqdm import tqdm

from ddep.config import get_key
from ddep.data.datasets.preparation import write_json
from ddep.data.image_reader import UnreadableImageError, read_labels
from ddep.data.json_file import read_json
from ddep.data.mapper_registry import mapper_class
from ddep.data.mappers.base import check_classes
from ddep.data.record import Record, annotated_objects
from ddep.data.unreadable import check_limit
from ddep.errors import UserError
from ddep.parallel import Crash, available_cores, parallel_map

logger = logging.getLogger(__name__)

# In OUTPUT_DIR: the classes found in label images, for later runs.
CACHE = "class_presence.json"
# Where a record lists its classes, by what the mapper needs labels for.
_LISTS = {
    "panoptic_seg": "segments_info",
    "segm": "annotations",
    "bbox": "annotations",
    "video_segm": "annotations",
}


def find_classes(cfg: CfgNode, records: Sequence[Record]) -> list[np.ndarray]:
    """Find the classes of each image in the labels that ``INPUT.DATASET_MAPPER_NAME`` uses.

    Records list the classes of segments (without crowds), of annotations (likewise) and of whole
    images. Label images have to be read: the main process does so, with all cores if
    ``DATALOADER.NUM_WORKERS`` is not 0, and tells the others. The result is kept in
    ``OUTPUT_DIR/class_presence.json`` and used again until one of the files changes. Unreadable
    label images show no class and count as unreadable training images.

    Returns:
        For each image (N,) int64, sorted, without repetition.

    Raises:
        UserError: an image without labels, or with a class out of range; more unreadable label
            images than ``INPUT.MAX_UNREADABLE``.
    """
    mapper = mapper_class(cfg.INPUT.DATASET_MAPPER_NAME)
    if mapper.needs_labels == "classification":
        return [_of_image(record) for record in records]
    if mapper.needs_labels in _LISTS:
        found = [_listed(record, _LISTS[mapper.needs_labels]) for record in records]
        number_key = getattr(mapper, "num_classes_key", "MODEL.SEM_SEG_HEAD.NUM_CLASSES")
        number = get_key(cfg, number_key)
        for record, classes in zip(records, found, strict=True):
            check_classes(record["file_name"], classes, number, number_key)
        return found
    outcome: list[np.ndarray] | UserError | None = None
    if comm.is_main_process():
        try:
            outcome = _semantic(cfg, records)
        except UserError as error:  # all processes raise it, so that none waits for the others
            outcome = error
    outcome = comm.all_gather(outcome)[0]
    if isinstance(outcome, UserError):
        raise outcome
    return outcome


def _listed(record: Record, key: str) -> np.ndarray:
    if key not in record:
        raise _no_labels(record, key)
    entries = annotated_objects(record) if key == "annotations" else record[key]
    classes = {entry["category_id"] for entry in entries if not entry.get("iscrowd", 0)}
    return np.array(sorted(classes), dtype=np.int64)


def _of_image(record: Record) -> np.ndarray:
    if "classes" not in record:
        raise _no_labels(record, "classes")
    return np.unique(np.array(record["classes"], dtype=np.int64))


def _no_labels(record: Record, key: str) -> UserError:
    return UserError(
        f"image {record['file_name']} has no labels ({key}), which class-uniform sampling "
        "needs; choose another DATALOADER.SAMPLER_TRAIN, INPUT.DATASET_MAPPER_NAME or data set"
    )


def _semantic(cfg: CfgNode, records: Sequence[Record]) -> list[np.ndarray]:
    for record in records:
        if "sem_seg_file_name" not in record:
            raise _no_labels(record, "sem_seg_file_name")
    paths = [record["sem_seg_file_name"] for record in records]
    ignore_label = cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    cache = Path(cfg.OUTPUT_DIR, CACHE)
    key = _fingerprint(paths, ignore_label)
    content = _load(cache, key)
    if content is None:
        workers = available_cores() if cfg.DATALOADER.NUM_WORKERS else 0
        logger.info(f"Reading {len(paths)} label images once, to find the classes that they show")
        content = {"key": key, **_read(paths, ignore_label, workers)}
        try:
            write_json(cache, content)
        except OSError as error:
            raise UserError(f"{cache} cannot be written: {error.strerror}; free space") from error
    logged: dict[str, str] = {}
    for path, message in content["unreadable"].items():
        logged[path] = message
        check_limit(logged, cfg.INPUT.MAX_UNREADABLE)
        logger.warning("skipped: %s", message)
    found = [np.array(classes, dtype=np.int64) for classes in content["classes"]]
    for path, classes in zip(paths, found, strict=True):
        check_classes(path, classes, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)
    return found


def _fingerprint(paths: Iterable[str], ignore_label: int) -> str:
    """A hash that changes when the list of files, or one of the files, changes."""
    digest = hashlib.sha256(str(ignore_label).encode())
    for path in paths:
        try:
            status = os.stat(path)
            state = (path, status.st_size, status.st_mtime_ns)
        except OSError:  # reading it will report why
            state = (path, None, None)
        digest.update(repr(state).encode())
    return digest.hexdigest()


def _load(cache: Path, key: str) -> dict[str, Any] | None:
    """The result of an earlier run; None if it is damaged or about other files."""
    if not cache.exists():
        return None
    try:
        content = read_json(cache)
        if content["key"] != key or not {"classes", "unreadable"} <= content.keys():
            return None
    except (UserError, TypeError, KeyError, AttributeError):
        logger.warning(f"{cache} is damaged; it is made again")
        return None
    logger.info(f"The classes that label images show are known from {cache}")
    return content


def _read(paths: Sequence[str], ignore_label: int, workers: int) -> dict[str, Any]:
    read = partial(_classes_of, ignore_label)
    results = parallel_map(read, paths, workers) if workers else map(read, paths)
    classes: list[list[int]] = []
    unreadable: dict[str, str] = {}
    progress = tqdm(results, total=len(paths), desc="classes", unit="image", disable=None)
    for path, found in zip(paths, progress, strict=True):
        if isinstance(found, Crash):
            unreadable[path] = f"label image {path} crashes the process that reads it; replace it"
        elif isinstance(found, str):
            unreadable[path] = found
        classes.append(found if isinstance(found, list) else [])
    return {"classes": classes, "unreadable": unreadable}


def _classes_of(ignore_label: int, path: str) -> list[int] | str:
    """The classes in a label image, or why it cannot be read."""
    try:
        labels = read_labels(path)
    except UnreadableImageError as error:
        return str(error)
    return [label for label in np.unique(labels).tolist() if label != ignore_label]
