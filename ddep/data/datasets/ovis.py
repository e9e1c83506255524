"""OVIS: videos with many occlusions, in YouTube-VIS's format."""

from __future__ import annotations

from pathlib import Path

from ddep.data.datasets.declaration import DatasetDeclaration, declare
from ddep.data.datasets.video import register_videos
from ddep.data.datasets.youtube_vis import FOLDERS, categories_of


def register_ovis(root: Path) -> None:
    """Register ``ovis_{train,val,test}`` below ``root``; "Vehical" is OVIS's own spelling."""
    folder = root / "ovis"
    for split, name in FOLDERS.items():
        register_videos(
            f"ovis_{split}",
            folder / name,
            folder / f"annotations_{name}.json",
            categories_of("ovis"),
            labels_are_secret=split != "train",
        )


declare(
    DatasetDeclaration(
        name="ovis",
        how_to_get={"ovis_*": "unpack OVIS's frames and JSON files"},
        register=register_ovis,
    )
)
