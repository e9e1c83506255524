"""Mapillary Vistas v1.2: street scenes, 65 classes, read as distributed.

Unlike in other sets, unlabelled pixels are 65 in the semantic labels, not 255. Labels of
Cityscapes' 19 classes can also be written: work on domain generalisation evaluates with these.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddep.data.datasets.cityscapes_classes import label_table, register_19_classes
from ddep.data.datasets.declaration import WORKERS, DatasetDeclaration, Preparation, declare
from ddep.data.datasets.label_preparation import LabelJob, write_labels, write_names
from ddep.data.datasets.panoptic import Category, PanopticSplit, register_panoptic
from ddep.data.datasets.preparation import check_range, image_pairs
from ddep.data.datasets.semantic import register_semantic
from ddep.data.datasets.tables import color, read_table
from ddep.data.image_reader import read_labels
from ddep.errors import UserError

FOLDERS = {"train": "training", "val": "validation"}
_LABELS_19 = "labels_19"
_NAMES_19 = "labels_19.txt"
_EXPECTED = "Mapillary Vistas v1.2: {training,validation}/{images,labels}"
_TABLE = read_table("mapillary_vistas")
CATEGORIES: list[Category] = [
    {"id": i, "name": row["name"], "isthing": int(row["isthing"]), "color": color(row)}
    for i, row in enumerate(_TABLE, start=1)
]
IGNORE_LABEL = len(CATEGORIES)
# Cityscapes' label of each class, 255 for classes that it does not have.
_LABEL_OF_CLASS = label_table(
    {i: row["cityscapes"] for i, row in enumerate(_TABLE) if row["cityscapes"]}, IGNORE_LABEL
)


def register_mapillary_vistas(root: Path) -> None:
    """Register ``mapillary_vistas_{sem_seg,panoptic,19_sem_seg}_{train,val}`` below ``root``."""
    for name, folder_name in FOLDERS.items():
        folder = root / "mapillary_vistas" / folder_name
        split = PanopticSplit(
            image_root=folder / "images",
            panoptic_root=folder / "panoptic",
            panoptic_json=folder / "panoptic" / "panoptic_2018.json",
            sem_seg_root=folder / "labels",
            image_suffix=".jpg",
        )
        register_panoptic(
            f"mapillary_vistas_panoptic_{name}",
            split,
            CATEGORIES,
            evaluator_type="mapillary_vistas_panoptic_seg",
            ignore_label=IGNORE_LABEL,
        )
        register_semantic(
            f"mapillary_vistas_sem_seg_{name}",
            split.image_root,
            split.sem_seg_root,
            [category["name"] for category in CATEGORIES],
            ignore_label=IGNORE_LABEL,
            colors=[category["color"] for category in CATEGORIES],
        )
        register_19_classes(
            f"mapillary_vistas_19_sem_seg_{name}",
            split.image_root,
            folder / _LABELS_19,
            names_file=folder / _NAMES_19,
        )


def prepare_mapillary_vistas(folder: Path, workers: int) -> dict[str, dict[str, int]]:
    """Write labels of Cityscapes' 19 classes, for the existing splits.

    Args:
        folder: mapillary_vistas, version 1.2; its files are not changed.
        workers: number of processes.

    Returns:
        For each split, the number of labels.

    Raises:
        UserError: no labels, a file missing or unreadable, a label out of range, sizes that differ.
    """
    present = {split: folder / name for split, name in FOLDERS.items() if (folder / name).is_dir()}
    if not present:
        raise UserError(f"{folder}: neither training/ nor validation/ in it; expected {_EXPECTED}")
    counts = {}
    for split, source in present.items():
        pairs = image_pairs(source / "images", source / "labels", ".png", _EXPECTED)
        (source / _NAMES_19).unlink(missing_ok=True)
        jobs = [
            LabelJob(image, labels, source / _LABELS_19 / labels.name) for image, labels in pairs
        ]
        write_labels(jobs, read_as_cityscapes, workers, f"mapillary vistas {split}")
        write_names(source / _NAMES_19, (image.stem for image, _ in pairs))
        counts[split] = {"labels": len(pairs)}
    return counts


def read_as_cityscapes(path: Path) -> np.ndarray:
    """Read one of the original label images as labels of Cityscapes' 19 classes.

    Returns:
        (H, W) uint8, 0..18 or 255 for void.
    """
    labels = read_labels(str(path))
    check_range(path, labels, IGNORE_LABEL, f"0..{IGNORE_LABEL}, of Mapillary Vistas v1.2")
    return _LABEL_OF_CLASS[labels]


declare(
    DatasetDeclaration(
        name="mapillary_vistas",
        how_to_get={
            "mapillary_vistas_19_*": "unpack Mapillary Vistas v1.2, then run python "
            "datasets/prepare.py mapillary_vistas",
            "mapillary_vistas_*": "unpack Mapillary Vistas v1.2 (from v2.0, move what is in v1.2/ "
            "up)",
        },
        register=register_mapillary_vistas,
        preparation=Preparation(
            summary="labels of Cityscapes' 19 classes",
            folder="mapillary_vistas",
            folder_help="with training/ and validation/; labels_19/ is written into both",
            prepare=prepare_mapillary_vistas,
            options=WORKERS,
        ),
    )
)
