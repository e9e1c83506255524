"""Mapillary Vistas v1.2: street scenes, 65 classes, read as its owners lay it out.

What sets it apart from the other sets: unlabelled pixels are 65 in the semantic labels, not 255.
"""

from __future__ import annotations

from pathlib import Path

from ddep.data.datasets.panoptic import Category, PanopticSplit, register_panoptic
from ddep.data.datasets.semantic import register_semantic
from ddep.data.datasets.tables import color, read_table

FOLDERS = {"train": "training", "val": "validation"}
CATEGORIES: list[Category] = [
    {"id": i, "name": row["name"], "isthing": int(row["isthing"]), "color": color(row)}
    for i, row in enumerate(read_table("mapillary_vistas"), start=1)
]
IGNORE_LABEL = len(CATEGORIES)


def register_mapillary_vistas(root: Path) -> None:
    """Register ``mapillary_vistas_{sem_seg,panoptic}_{train,val}`` below ``root``."""
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
