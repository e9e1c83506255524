"""Pascal Context: scene labels of VOC 2010's images, 59 classes, or 60 with the background.

Reads two forms of the labels: the original MATLAB files with numbers of 459 classes, and PNG files
of the 59, 0 for the background, as mmsegmentation writes them. The classes are the 59 most frequent
ones in alphabetical order; everything else is background.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ddep.data.datasets.declaration import WORKERS, DatasetDeclaration, Preparation, declare
from ddep.data.datasets.label_preparation import (
    LabelJob,
    read_matlab,
    write_labels,
    write_names,
)
from ddep.data.datasets.preparation import check_range
from ddep.data.datasets.semantic import register_semantic
from ddep.data.datasets.tables import color, read_table
from ddep.data.image_reader import read_labels
from ddep.errors import UserError

SPLITS = ("train", "val")
# The background first.
_TABLE = read_table("pascal_context")
CLASSES = [row["name"] for row in _TABLE]
_COLORS = [color(row) for row in _TABLE]
_HIGHEST_ID = 459
# From the original numbers to indices into CLASSES.
_CLASS_OF_ID = np.zeros(_HIGHEST_ID + 1, dtype=np.uint8)
_CLASS_OF_ID[[int(row["id"]) for row in _TABLE]] = np.arange(len(_TABLE))
# Folder and ending of the labels, and the matching folder of the lists of images.
_FORMS = (
    ("SegmentationClassContext", ".png", "SegmentationContext"),
    ("trainval", ".mat", "Main"),
)


def register_pascal_context(root: Path) -> None:
    """Register ``pascal_context_{59,60}_sem_seg_{train,val}`` below ``root``."""
    folder = root / "VOCdevkit" / "VOC2010"
    for split in SPLITS:
        for number, first in ((60, 0), (59, 1)):
            register_semantic(
                f"pascal_context_{number}_sem_seg_{split}",
                folder / "JPEGImages",
                folder / f"pascal_context_{number}",
                CLASSES[first:],
                colors=_COLORS[first:],
                names_file=_names_file(folder, split),
            )


def _names_file(folder: Path, split: str) -> Path:
    return folder / f"pascal_context_{split}.txt"


def prepare_pascal_context(folder: Path, workers: int) -> dict[str, dict[str, int]]:
    """Write labels of 59 and of 60 classes, and the names of the images of each split.

    Args:
        folder: VOC2010, with ``JPEGImages``, and ``SegmentationClassContext`` or ``trainval``,
            which are not changed. If there are both, the first is read.
        workers: number of processes.

    Returns:
        For each split, the number of images.

    Raises:
        UserError: a file missing or unreadable, a label out of range, sizes that differ.
    """
    names = _read_splits(folder)
    for split in SPLITS:
        _names_file(folder, split).unlink(missing_ok=True)
    source, suffix, _ = _form(folder)
    for number in (59, 60):
        jobs = [
            LabelJob(
                image=folder / "JPEGImages" / f"{name}.jpg",
                source=folder / source / f"{name}{suffix}",
                target=folder / f"pascal_context_{number}" / f"{name}.png",
            )
            for split in SPLITS
            for name in names[split]
        ]
        read = partial(read_pascal_context, background=number == 60)
        write_labels(jobs, read, workers, f"pascal context {number}")
    for split in SPLITS:
        write_names(_names_file(folder, split), names[split])
    return {split: {"images": len(names[split])} for split in SPLITS}


def _form(folder: Path) -> tuple[str, str, str]:
    """The form in which the labels are there."""
    for form in _FORMS:
        if (folder / form[0]).is_dir():
            return form
    raise UserError(
        f"{folder}: no labels of Pascal Context in it; expected VOC2010 with JPEGImages and "
        "trainval/NAME.mat or SegmentationClassContext/NAME.png, as datasets/README.md shows"
    )


def _read_splits(folder: Path) -> dict[str, list[str]]:
    """Names of the images of each split; UserError if a label is missing."""
    source, suffix, lists = _form(folder)
    splits = {}
    for split in SPLITS:
        path = folder / "ImageSets" / lists / f"{split}.txt"
        try:
            splits[split] = path.read_text(encoding="utf-8").split()
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}); it comes with the labels in {source}/ "
                "and names the split's images, see datasets/README.md"
            ) from error
        for name in splits[split]:
            label = folder / source / f"{name}{suffix}"
            if not label.exists():
                raise UserError(f"{label} does not exist, but {path} lists {name}")
    return splits


def read_pascal_context(path: Path, background: bool) -> np.ndarray:
    """Read a label of either form.

    Args:
        path: a MATLAB file with ``LabelMap``, 1..459, or a PNG file of 0..59.
        background: whether the background is a class (the first) or void.

    Returns:
        (H, W) uint8, 0..59 with the background, else 0..58 and 255 for void.
    """
    if path.suffix == ".mat":
        numbers = read_matlab(path, "LabelMap").astype(np.int64)
        check_range(path, numbers, _HIGHEST_ID, f"Pascal Context's numbers, 0..{_HIGHEST_ID}")
        labels = _CLASS_OF_ID[numbers]
    else:
        labels = read_labels(str(path))
        check_range(path, labels, len(CLASSES) - 1, "0..59, 0 for the background")
        labels = labels.astype(np.uint8)
    # 0 wraps to 255, which is void.
    return labels if background else labels - np.uint8(1)


declare(
    DatasetDeclaration(
        name="pascal_context",
        how_to_get={
            "pascal_context_*": "unpack VOC 2010 and Pascal Context's labels, then run python "
            "datasets/prepare.py pascal_context"
        },
        register=register_pascal_context,
        preparation=Preparation(
            summary="labels of 59 and of 60 classes",
            folder="VOCdevkit/VOC2010",
            folder_help="with JPEGImages/ and trainval/ or SegmentationClassContext/; "
            "pascal_context_{59,60}/ are written into it",
            prepare=prepare_pascal_context,
            options=WORKERS,
        ),
    )
)
