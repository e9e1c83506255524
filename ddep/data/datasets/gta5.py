"""GTA5: images of a computer game ("Playing for Data", arXiv 1608.02192), 19 classes of Cityscapes.

Its labels use Cityscapes' numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ddep.data.datasets.cityscapes_classes import CATEGORIES, label_table, register_19_classes
from ddep.data.datasets.declaration import WORKERS, DatasetDeclaration, Preparation, declare
from ddep.data.datasets.label_preparation import (
    LabelJob,
    read_matlab,
    write_labels,
    write_names,
)
from ddep.data.datasets.preparation import check_range, image_pairs
from ddep.data.image_reader import read_labels

# Cityscapes' numbers, and 34 for licence plates, which Cityscapes numbers -1.
_HIGHEST_CLASS = 34
_LABEL_OF_CLASS = label_table({c["id"]: c["name"] for c in CATEGORIES}, _HIGHEST_CLASS)
ALL = "all"
# The names of the original splits in split.mat.
SPLITS = {"train": "trainIds", "val": "valIds", "test": "testIds"}
_LABELS = "labels_19"
_EXPECTED = "GTA5: images/NNNNN.png and labels/NNNNN.png"


def register_gta5(root: Path) -> None:
    """Register ``gta5_sem_seg_{all,train,val,test}`` below ``root``."""
    folder = root / "gta5"
    for split in (ALL, *SPLITS):
        register_19_classes(
            f"gta5_sem_seg_{split}",
            folder / "images",
            folder / _LABELS,
            image_extension="png",
            names_file=folder / f"{split}.txt",
        )


def prepare_gta5(folder: Path, workers: int) -> dict[str, dict[str, int]]:
    """Write labels of Cityscapes' 19 classes, and the names of the images of each split.

    The few images whose label has another size are left out, and listed in ``left_out.txt``. The
    original splits need ``split.mat``; without it they are left out.

    Args:
        folder: gta5, with ``images`` and ``labels``; other files in it stay as they are.
        workers: number of processes.

    Returns:
        For each split, the number of images, and of those left out.

    Raises:
        UserError: a file missing or unreadable, a label out of range, an unusable ``split.mat``.
    """
    splits = _read_splits(folder / "split.mat")
    pairs = image_pairs(folder / "images", folder / "labels", ".png", _EXPECTED)
    for split in (ALL, *SPLITS):
        (folder / f"{split}.txt").unlink(missing_ok=True)
    jobs = [LabelJob(image, labels, folder / _LABELS / labels.name) for image, labels in pairs]
    left_out = write_labels(jobs, read_gta5, workers, "gta5", leave_out_mismatched=True)
    write_names(folder / "left_out.txt", left_out)
    there = {image.stem for image, _ in pairs}
    used = there - set(left_out)
    counts = {}
    for split, names in {**splits, ALL: there}.items():
        write_names(folder / f"{split}.txt", names & used)
        counts[split] = {
            "images": len(names & used),
            "left out for their label's size": len(names & set(left_out)),
            **({} if names <= there else {"not there": len(names - there)}),
        }
    return counts


def read_gta5(path: Path) -> np.ndarray:
    """Read one of the original label images, which have palettes.

    Returns:
        (H, W) uint8, 0..18 or 255 for void.
    """
    labels = read_labels(str(path))
    check_range(path, labels, _HIGHEST_CLASS, f"Cityscapes' numbers, 0..{_HIGHEST_CLASS}")
    return _LABEL_OF_CLASS[labels]


def _read_splits(path: Path) -> dict[str, set[str]]:
    """Names of the images of each original split; no splits without the file."""
    if not path.exists():
        return {}
    numbers = {split: read_matlab(path, variable).ravel() for split, variable in SPLITS.items()}
    # MATLAB's numbers may be floats.
    return {split: {f"{int(n):05d}" for n in found} for split, found in numbers.items()}


def _notes(folder: Path) -> Iterator[str]:
    left_out = (folder / "left_out.txt").read_text("utf-8").split()
    if left_out:
        yield f"left out, their labels have other sizes: {', '.join(left_out)}"
    if not (folder / "split.mat").exists():
        yield "no splits but all, because there is no split.mat"


declare(
    DatasetDeclaration(
        name="gta5",
        how_to_get={
            "gta5_sem_seg_all": "unpack GTA5, then run python datasets/prepare.py gta5",
            "gta5_*": "unpack GTA5 with its split.mat, then run python datasets/prepare.py gta5",
        },
        register=register_gta5,
        preparation=Preparation(
            summary="labels of Cityscapes' 19 classes",
            folder="gta5",
            folder_help="with images/ and labels/; labels_19/ is written into it",
            prepare=prepare_gta5,
            options=WORKERS,
            notes=_notes,
        ),
    )
)
