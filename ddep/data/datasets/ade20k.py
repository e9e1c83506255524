"""ADE20K, the scene parsing benchmark with 150 classes, 100 of them things.

A category id in the JSON files is the class's index among all 150, even in the instance sets, whose
contiguous ids are 0..99. ``ade20k_sem_seg_{train,val}`` are as detectron2 registers them, with the
classes' colours added.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES

from ddep.data.datasets.ade20k_classes import (
    CATEGORIES,
    FOLDERS,
    THINGS,
    ade20k_split,
    instances_json,
)
from ddep.data.datasets.ade20k_preparation import prepare_ade20k
from ddep.data.datasets.declaration import WORKERS, DatasetDeclaration, Preparation, declare
from ddep.data.datasets.instances import register_instances
from ddep.data.datasets.panoptic import register_panoptic
from ddep.data.datasets.semantic import register_semantic


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


def _notes(folder: Path) -> Iterator[str]:
    if not (folder / "annotations_instance").exists():
        yield "no panoptic and instance labels, because there is no annotations_instance/"


_INSTANCES = (
    "unpack ADEChallengeData2016 and its annotations_instance.tar, then run python "
    "datasets/prepare.py ade20k"
)
declare(
    DatasetDeclaration(
        name="ade20k",
        how_to_get={
            "ade20k_sem_seg_*": "unpack ADEChallengeData2016, then run python datasets/prepare.py "
            "ade20k",
            "ade20k_panoptic_*": _INSTANCES,
            "ade20k_instance_*": _INSTANCES,
        },
        register=register_ade20k,
        preparation=Preparation(
            summary="semantic labels as detectron2 reads them, panoptic and instance labels",
            folder="ADEChallengeData2016",
            folder_help="with images/, annotations/ and, for panoptic and instance labels, "
            "annotations_instance/; all labels are written into it",
            prepare=prepare_ade20k,
            options=WORKERS,
            notes=_notes,
        ),
    )
)
