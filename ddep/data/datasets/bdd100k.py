"""BDD100K's semantic labels: 10,000 street scenes, Cityscapes' 19 classes, read as distributed."""

from __future__ import annotations

from pathlib import Path

from ddep.data.datasets.cityscapes_classes import register_19_classes
from ddep.data.datasets.declaration import DatasetDeclaration, declare

SPLITS = ("train", "val")


def register_bdd100k(root: Path) -> None:
    """Register ``bdd100k_sem_seg_{train,val}`` below ``root``.

    Some of the original archives hold images without a label and labels without an image.
    """
    folder = root / "bdd100k"
    for split in SPLITS:
        register_19_classes(
            f"bdd100k_sem_seg_{split}",
            folder / "images" / "10k" / split,
            folder / "labels" / "sem_seg" / "masks" / split,
            leave_out_unpaired=True,
        )


declare(
    DatasetDeclaration(
        name="bdd100k",
        how_to_get={"bdd100k_*": "unpack BDD100K's 10K images and segmentation labels"},
        register=register_bdd100k,
    )
)
