"""Penn-Fudan: photographs of pedestrians, with a mask of each person.

It has no official split. Here a fifth of the images, chosen by a hash of their names, is for
validation: 136 and 34 of the 170 images, the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ddep.data.datasets.declaration import DatasetDeclaration, Preparation, declare
from ddep.data.datasets.instance_writer import InstanceWriter
from ddep.data.datasets.instances import register_instances
from ddep.data.datasets.panoptic import Category, PanopticSplit, register_panoptic
from ddep.data.datasets.preparation import (
    PanopticWriter,
    check_same_size,
    copy_file,
    image_pairs,
)
from ddep.data.image_reader import read_image, read_labels
from ddep.errors import UserError

SPLITS = ("train", "val")
SPLIT_SEED = 0
# The thing comes first, so that class 0 is also the pedestrian in the instance sets.
CATEGORIES: list[Category] = [
    {"id": 1, "name": "pedestrian", "isthing": 1, "color": [220, 20, 60]},
    {"id": 2, "name": "background", "isthing": 0, "color": [70, 130, 120]},
]
_IMAGES = "PNGImages"
_EXPECTED = "Penn-Fudan: PNGImages/NAME.png (or .jpg) and PedMasks/NAME_mask.png"


def register_penn_fudan(root: Path) -> None:
    """Register ``penn_fudan_instance_*`` and ``penn_fudan_panoptic_*`` below ``root``."""
    folder = root / "penn_fudan"
    for split in SPLITS:
        register_panoptic(
            f"penn_fudan_panoptic_{split}",
            PanopticSplit.below(folder, split, images=_IMAGES),
            CATEGORIES,
        )
        register_instances(
            f"penn_fudan_instance_{split}",
            folder / _IMAGES,
            folder / f"instances_{split}.json",
            CATEGORIES[:1],
        )


def split_names(names: Iterable[str]) -> dict[str, list[str]]:
    """Split ``names`` into train and val, a fifth (rounded) for val, by a seeded hash of each.

    Returns:
        The names of each split, sorted.
    """
    shuffled = sorted(
        names, key=lambda name: hashlib.sha256(f"{SPLIT_SEED} {name}".encode()).digest()
    )
    number_of_val = round(len(shuffled) / 5)
    return {"train": sorted(shuffled[number_of_val:]), "val": sorted(shuffled[:number_of_val])}


def prepare_penn_fudan(source: Path, target: Path) -> dict[str, dict[str, int]]:
    """Write Penn-Fudan's images, and instance, panoptic and semantic labels of both splits.

    Args:
        source: the original tree; a mask's pixels are 0 for background and 1..N for its people.
        target: folder to write to. Images are copied, unless it is ``source``.

    Returns:
        For each split, the number of images and of people.

    Raises:
        UserError: a file missing or unreadable, ids that are not 1..N, sizes that differ.
    """
    pairs = {
        image.stem: (image, label)
        for image, label in image_pairs(
            source / _IMAGES, source / "PedMasks", "_mask.png", _EXPECTED
        )
    }
    return {
        split: _prepare_split([pairs[name] for name in names], target, split)
        for split, names in split_names(pairs).items()
    }


def _prepare_split(pairs: Sequence[tuple[Path, Path]], target: Path, split: str) -> dict[str, int]:
    pedestrian, background = CATEGORIES
    panoptic_split = PanopticSplit.below(target, split, images=_IMAGES)
    people_writer = InstanceWriter(target / f"instances_{split}.json", [pedestrian])
    writer = PanopticWriter(panoptic_split, CATEGORIES)
    for image, label in tqdm(pairs, desc=f"penn_fudan {split}", disable=None):
        people = read_labels(str(label))
        check_same_size(image, read_image(str(image), "RGB"), label, people)
        ids = np.unique(people[people > 0])
        if not np.array_equal(ids, np.arange(1, len(ids) + 1)):
            raise UserError(
                f"{label}: the ids of its people are {ids.tolist()}; expected 0 for background and "
                f"1, 2, ... for the people"
            )
        copy_file(image, panoptic_split.image_root / image.name)
        background_id = len(ids) + 1
        person_ids = dict.fromkeys(ids.tolist(), pedestrian["id"])
        writer.add(
            image.name,
            sem_seg=(people == 0).astype(np.uint8),
            panoptic=np.where(people == 0, background_id, people),
            category_ids={**person_ids, background_id: background["id"]},
        )
        people_writer.add(writer.images[-1], people, person_ids)
    people_writer.finish()
    writer.finish()
    return {"images": len(pairs), "people": len(people_writer.annotations)}


declare(
    DatasetDeclaration(
        name="penn_fudan",
        how_to_get={"penn_fudan_*": "make it with python datasets/prepare.py penn_fudan SRC"},
        register=register_penn_fudan,
        preparation=Preparation(
            summary="instance, panoptic and semantic labels, split 4 to 1 into train and val",
            source_help="folder with PNGImages/ and PedMasks/",
            folder="penn_fudan",
            folder_help="folder to write to, images included",
            prepare=prepare_penn_fudan,
        ),
    )
)
