"""Check a data set and write a report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from tqdm import tqdm

from ddep.config import add_ddep_config
from ddep.data import register_from_config
from ddep.data.checks import (
    DatasetReport,
    ImageReport,
    LabelSpace,
    Problem,
    check_annotation_files,
    check_folders,
    check_record,
    check_video_files,
    pair_folders,
)
from ddep.data.datasets.from_config import check_files
from ddep.data.datasets.preparation import write_png
from ddep.data.record import as_images
from ddep.drawing.contact_sheet import MAX_PICTURES, draw_contact_sheet
from ddep.errors import UserError, one_line
from ddep.output_files import check_writable, write_json
from ddep.parallel import Crash, parallel_map

REPORT = "report.json"
CONTACT_SHEET = "contact_sheet.png"


def check_dataset(
    name: str, output: str, workers: int, cfg: CfgNode | None = None
) -> DatasetReport:
    """Check a data set; write ``report.json`` and ``contact_sheet.png``.

    The contact sheet shows images in which nothing is wrong, evenly spaced over the data set.

    Args:
        name: of a registered data set, ``images:<folder>`` or ``classes:<folder>``.
        output: the folder to write to.
        workers: number of processes.
        cfg: a config whose DATASETS.CUSTOM may describe it.

    Raises:
        UserError: there is no such data set, or nothing can be written.
    """
    _find(name, cfg)
    for file in (REPORT, CONTACT_SHEET):
        check_writable("--output", os.path.join(output, file))
    metadata = MetadataCatalog.get(name)
    records, problems = _load(name, metadata)
    report = DatasetReport(name, _class_names(metadata))
    report.add_problems(problems)
    images, owners = as_images(records), np.arange(len(records))
    if images is not records:
        report.videos = len(records)
        owners = np.repeat(owners, [record["length"] for record in records])
    is_fine = np.ones(len(records), dtype=bool)
    results = parallel_map(partial(check_record, LabelSpace.of(metadata)), images, workers)
    for position, found in enumerate(
        tqdm(results, total=len(images), desc=name, unit="image", disable=None)
    ):
        image = _crashed(images[position]) if isinstance(found, Crash) else found
        is_fine[owners[position]] &= not image.problems
        report.add(image)
    fine = np.flatnonzero(is_fine)
    shown = fine[np.linspace(0, len(fine) - 1, min(len(fine), MAX_PICTURES)).astype(int)]
    sheet = Path(output, CONTACT_SHEET)
    sheet.unlink(missing_ok=True)
    if len(shown):
        write_png(sheet, draw_contact_sheet([records[position] for position in shown], metadata))
    write_json(os.path.join(output, REPORT), report.to_json())
    return report


def _class_names(metadata: Metadata) -> Sequence[str]:
    keys = ("stuff_classes", "thing_classes", "classes")
    return next((metadata.get(key) for key in keys if metadata.get(key)), ())


def _find(name: str, cfg: CfgNode | None) -> None:
    """Register the data set; UserError unless its files or folders are there."""
    if cfg is None:
        cfg = get_cfg()
        add_ddep_config(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), (name,)
    try:
        register_from_config(cfg, keys=())
    except UserError as error:
        raise UserError(str(error).removeprefix("DATASETS.TEST: ")) from error
    check_files(name)


def _load(name: str, metadata: Metadata) -> tuple[Sequence[dict[str, Any]], list[Problem]]:
    """The records that can be loaded, and the problems of the data set as a whole."""
    unreadable = ""
    problems: list[Problem] = []
    try:
        problems = check_annotation_files(metadata)
    except UserError as error:
        unreadable = str(error)
    try:
        records = DatasetCatalog.get(name)
    except Exception as error:  # loaders of all kinds raise all kinds of things
        records, unpaired = pair_folders(metadata)
        consequence = "" if records else ", so no image was checked"
        # A loader's own message about a damaged file depends on where it happens to fail.
        cause = unreadable or one_line(error) or repr(error)
        message = f"{name} cannot be loaded{consequence}: {cause}"
        return records, [*problems, *unpaired, Problem("annotations", name, message)]
    if unreadable:
        problems = [Problem("annotations", name, unreadable)]
    problems += [*check_folders(metadata, records), *check_video_files(records)]
    return records, problems


def _crashed(record: dict[str, Any]) -> ImageReport:
    path = record["file_name"]
    message = f"the process that checked {path} and its labels died; check both, and the memory"
    return ImageReport([Problem("crash", path, message)])
