"""YouTube-VIS 2019 and 2021, in the layout of their archives and of Mask2Former-video."""

from __future__ import annotations

from pathlib import Path

from ddep.data.datasets.declaration import DatasetDeclaration, declare
from ddep.data.datasets.panoptic import Category
from ddep.data.datasets.tables import color, read_table
from ddep.data.datasets.video import register_videos

YEARS = (2019, 2021)
# The folders of the splits. Only the training videos have public annotations.
FOLDERS = {"train": "train", "val": "valid", "test": "test"}


def categories_of(table: str) -> list[Category]:
    """The classes in a table of names and colours, all things, with the ids 1, 2, ..."""
    return [
        {"id": number, "name": row["name"], "isthing": 1, "color": color(row)}
        for number, row in enumerate(read_table(table), start=1)
    ]


def register_youtube_vis(root: Path) -> None:
    """Register ``ytvis_{2019,2021}_{train,val,test}`` below ``root``."""
    for year in YEARS:
        categories = categories_of(f"youtube_vis_{year}")
        for split, folder in FOLDERS.items():
            register_videos(
                f"ytvis_{year}_{split}",
                root / f"ytvis_{year}" / folder / "JPEGImages",
                root / f"ytvis_{year}" / f"{folder}.json",
                categories,
                labels_are_secret=split != "train",
            )


declare(
    DatasetDeclaration(
        name="youtube_vis",
        how_to_get={"ytvis_*": "unpack YouTube-VIS's frames and JSON files"},
        register=register_youtube_vis,
    )
)
