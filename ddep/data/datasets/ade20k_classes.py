"""ADE20K's 150 classes, and the paths of its files."""

from __future__ import annotations

from pathlib import Path

from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES

from ddep.data.datasets.panoptic import Category, PanopticSplit
from ddep.data.datasets.tables import color, read_table

# The folders of the splits.
FOLDERS = {"train": "training", "val": "validation"}
_TABLE = list(zip(ADE20K_SEM_SEG_CATEGORIES, read_table("ade20k"), strict=True))
CATEGORIES: list[Category] = [
    {"id": i, "name": name, "isthing": int(row["thing"] != ""), "color": color(row)}
    for i, (name, row) in enumerate(_TABLE)
]
# The instance benchmark uses other names. The k-th of these is number k in its label images.
THINGS: list[Category] = [
    {"id": i, "name": row["thing"], "isthing": 1, "color": color(row)}
    for i, (_, row) in enumerate(_TABLE)
    if row["thing"]
]


def ade20k_split(folder: Path, split: str) -> PanopticSplit:
    """The paths of a panoptic split below ``folder``, ADEChallengeData2016."""
    return PanopticSplit(
        image_root=folder / "images" / FOLDERS[split],
        panoptic_root=folder / f"ade20k_panoptic_{split}",
        panoptic_json=folder / f"ade20k_panoptic_{split}.json",
        sem_seg_root=folder / "annotations_detectron2" / FOLDERS[split],
    )


def instances_json(folder: Path, split: str) -> Path:
    """The instance annotations of a split below ``folder``, ADEChallengeData2016."""
    return folder / f"ade20k_instance_{split}.json"
