"""The full ADE20K of 2021, with its 847 most frequent classes, in MaskFormer's form.

Images are scaled down to a shorter side of 512 pixels, if it is longer. Labels are 16-bit TIFF
files: indices into the list of classes, 65535 for everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ddep.data.datasets.declaration import WORKERS, DatasetDeclaration, Preparation, declare
from ddep.data.datasets.preparation import (
    check_same_size,
    copy_file,
    do_jobs,
    write_jpeg,
    write_tiff,
)
from ddep.data.datasets.semantic import register_semantic
from ddep.data.datasets.tables import read_table
from ddep.data.image_reader import read_image, read_panoptic
from ddep.errors import UserError
from ddep.parallel import check_workers

FOLDERS = {"train": "training", "val": "validation"}
IGNORE_LABEL = 65535
SHORTER_SIDE = 512
# Each class's number in the original data, and its name; labels are indices into this list.
CLASSES = [(int(row["id"]), row["name"]) for row in read_table("ade20k_full")]
# In the original label images a class's number is red // 10 * 256 + green.
_LABEL_OF_CLASS = np.full(26 * 256, IGNORE_LABEL, dtype=np.uint16)
_LABEL_OF_CLASS[[class_id for class_id, _ in CLASSES]] = np.arange(len(CLASSES))


@dataclass(frozen=True)
class _Job:
    """One image: its files, and the files to write."""

    image: Path
    labels: Path
    prepared_image: Path
    prepared_labels: Path


def register_ade20k_full(root: Path) -> None:
    """Register ``ade20k_full_sem_seg_{train,val}`` below ``root``."""
    folder = root / "ADE20K_2021_17_01"
    for split, name in FOLDERS.items():
        register_semantic(
            f"ade20k_full_sem_seg_{split}",
            folder / "images_detectron2" / name,
            folder / "annotations_detectron2" / name,
            [name for _, name in CLASSES],
            ignore_label=IGNORE_LABEL,
            label_extension="tif",
        )


def prepare_ade20k_full(folder: Path, workers: int) -> dict[str, dict[str, int]]:
    """Write ``images_detectron2`` and ``annotations_detectron2``.

    Args:
        folder: ADE20K_2021_17_01, as distributed.
        workers: number of processes.

    Returns:
        For each split, the number of images.

    Raises:
        UserError: a file missing or unreadable, sizes that differ.
    """
    check_workers(workers)
    jobs = {split: _list_jobs(folder, split) for split in FOLDERS}
    for split, jobs_of_split in jobs.items():
        progress = f"ade20k full {split}"
        for _ in do_jobs(_prepare_image, jobs_of_split, lambda job: job.image, workers, progress):
            pass
    return {split: {"images": len(jobs[split])} for split in FOLDERS}


def _list_jobs(folder: Path, split: str) -> list[_Job]:
    """The images of a split: ADE_val_* for val, all others (including ADE_frame_*) for train."""
    found = sorted((folder / "images").rglob("ADE_*.jpg"))
    images = [path for path in found if path.name.startswith("ADE_val_") == (split == "val")]
    if not images:
        raise UserError(
            f"{folder / 'images'}: no images of {split} in it; expected ADE20K_2021_17_01 with "
            f"images/ADE/{{training,validation}}/.../ADE_*.jpg and ADE_*_seg.png"
        )
    jobs = []
    for image in images:
        labels = image.with_name(f"{image.stem}_seg.png")
        if not labels.exists():
            raise UserError(f"{image}: its label {labels.name} is missing from its folder")
        prepared = folder / "annotations_detectron2" / FOLDERS[split] / f"{image.stem}.tif"
        copy = folder / "images_detectron2" / FOLDERS[split] / image.name
        jobs.append(_Job(image, labels, prepared_image=copy, prepared_labels=prepared))
    return jobs


def _prepare_image(job: _Job) -> None:
    image = read_image(str(job.image))
    # Red + 256 green + 65536 blue.
    coded = read_panoptic(str(job.labels))
    check_same_size(job.image, image, job.labels, coded)
    class_ids = (coded & 255) // 10 * 256 + (coded >> 8 & 255)
    labels = _LABEL_OF_CLASS[class_ids]
    height, width = labels.shape
    factor = SHORTER_SIDE / min(height, width)
    if factor < 1:
        size = round(width * factor), round(height * factor)
        write_tiff(job.prepared_labels, cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST))
        write_jpeg(job.prepared_image, cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))
    else:
        write_tiff(job.prepared_labels, labels)
        copy_file(job.image, job.prepared_image)


declare(
    DatasetDeclaration(
        name="ade20k_full",
        how_to_get={
            "ade20k_full_*": "unpack ADE20K_2021_17_01, then run python datasets/prepare.py "
            "ade20k_full"
        },
        register=register_ade20k_full,
        preparation=Preparation(
            summary="the full ADE20K as MaskFormer reads it: 847 classes, shorter side at most 512",
            folder="ADE20K_2021_17_01",
            folder_help="with images/; images_detectron2/ and annotations_detectron2/ are written "
            "into it",
            prepare=prepare_ade20k_full,
            options=WORKERS,
        ),
    )
)
