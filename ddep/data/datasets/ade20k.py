"""ADE20K, the scene parsing benchmark with 150 classes, 100 of them things.

A category id in the JSON files is the class's place among all 150, also in those of the instance
sets, whose contiguous ids are 0..99. ``ade20k_sem_seg_{train,val}`` are as detectron2 registers
them, with the classes' colours added.
"""

from __future__ import annotations

from pathlib import Path

from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES

from ddep.data.datasets.instances import register_instances
from ddep.data.datasets.panoptic import Category, PanopticSplit, register_panoptic
from ddep.data.datasets.semantic import register_semantic
from ddep.data.datasets.tables import color, read_table

# The folders of the splits.
FOLDERS = {"train": "training", "val": "validation"}
_TABLE = list(zip(ADE20K_SEM_SEG_CATEGORIES, read_table("ade20k"), strict=True))
CATEGORIES: list[Category] = [
    {"id": i, "name": name, "isthing": int(row["thing"] != ""), "color": color(row)}
    for i, (name, row) in enumerate(_TABLE)
]
# The instance benchmark has names of its own. The k-th of these is number k in its label images.
THINGS: list[Category] = [
    {"id": i, "name": row["thing"], "isthing": 1, "color": color(row)}
    for i, (_, row) in enumerate(_TABLE)
    if row["thing"]
]


def ade20k_split(folder: Path, split: str) -> PanopticSplit:
    """Where a panoptic split lies below ``folder``, ADEChallengeData2016."""
    return PanopticSplit(
        image_root=folder / "images" / FOLDERS[split],
        panoptic_root=folder / f"ade20k_panoptic_{split}",
        panoptic_json=folder / f"ade20k_panoptic_{split}.json",
        sem_seg_root=folder / "annotations_detectron2" / FOLDERS[split],
    )


def instances_json(folder: Path, split: str) -> Path:
    """The instance annotations of a split below ``folder``, ADEChallengeData2016."""
    return folder / f"ade20k_instance_{split}.json"


def register_ade20k(root: Path) -> None:
    """Register ``ade20k_{sem_seg,panoptic,instance}_{train,val}`` below ``root``."""
    folder = root / "ADEChallengeData2016"
    for name in FOLDERS:
        split, json_file = ade20k_split(folder, name), instances_json(folder, name)
        register_instances(f"ade20k_instance_{name}", split.image_root, json_file, THINGS)
        register_panoptic(
            f"ade20k_panoptic_{name}",
            split,
            CATEGORIES,
            evaluator_type="ade20k_panoptic_seg",
            json_file=str(json_file),
        )
        register_semantic(
            f"ade20k_sem_seg_{name}",
            split.image_root,
            split.sem_seg_root,
            ADE20K_SEM_SEG_CATEGORIES,
            colors=[category["color"] for category in CATEGORIES],
        )
