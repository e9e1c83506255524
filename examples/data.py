"""A data set of one's own, which the package does not know: coins on a table.

    python examples/data.py

writes its pictures below $DETECTRON2_DATASETS.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ddep.data.datasets.declaration import DatasetDeclaration, Preparation, declare
from ddep.data.datasets.prepare_command import main
from ddep.data.datasets.semantic import register_semantic

CLASSES = ["table", "coin"]
COLOURS = [[120, 80, 40], [220, 190, 90]]
IMAGES = {"train": 60, "val": 12}
SIDE = 64


def register_coins(root: Path) -> None:
    """Register ``coins_train`` and ``coins_val`` below ``root``; nothing is read yet."""
    for split in IMAGES:
        folder = root / "coins" / split
        register_semantic(
            f"coins_{split}",
            folder / "images",
            folder / "labels",
            CLASSES,
            colors=COLOURS,
            image_extension="png",
        )


def write_coins(target: Path) -> dict[str, dict[str, int]]:
    """Draw the pictures and their labels below ``target``; what was written, by split."""
    numbers = np.random.default_rng(0)
    for split, count in IMAGES.items():
        folder = target / split
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels, labels = draw_coins(numbers)
            Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
            Image.fromarray(labels).save(folder / "labels" / f"{index}.png")
    return {split: {"images": count} for split, count in IMAGES.items()}


def draw_coins(numbers: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) uint8 of one to four coins, and its labels (H, W) uint8."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(numbers.integers(1, 5)):
        (row, column), radius = numbers.integers(0, SIDE, 2), numbers.integers(6, 14)
        labels[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = 1
    pixels = np.array(COLOURS)[labels] + numbers.normal(0, 25, (SIDE, SIDE, 3))
    return pixels.clip(0, 255).astype(np.uint8), labels


declare(
    DatasetDeclaration(
        name="coins",
        how_to_get={"coins_*": "make it with python examples/data.py"},
        register=register_coins,
        preparation=Preparation(
            summary="pictures of coins on a table, with a label for every pixel",
            folder="coins",
            folder_help="folder to write to",
            prepare=write_coins,
        ),
    )
)

if __name__ == "__main__":
    main(["coins", *sys.argv[1:]])
