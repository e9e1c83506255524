"""CamVid: road scenes, 11 classes, in the split that SegNet's authors published.

CamVid has no instance labels. The panoptic sets take each 8-connected component of car, pedestrian
and bicyclist as one instance: touching objects of a class count as one, and an object that is cut
in two counts as two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from ddep.data.datasets.catalog import register
from ddep.data.datasets.declaration import DatasetDeclaration, Preparation, declare
from ddep.data.datasets.label_kinds import SEMANTIC
from ddep.data.datasets.panoptic import (
    IGNORE_LABEL,
    Category,
    PanopticSplit,
    load_panoptic,
    register_panoptic,
)
from ddep.data.datasets.preparation import (
    PanopticWriter,
    check_range,
    check_same_size,
    copy_file,
    image_pairs,
)
from ddep.data.image_reader import read_image, read_labels
from ddep.data.record import Record

SPLITS = ("train", "val", "test")
SOURCE_UNLABELLED = 11
# Components with fewer pixels are labelling noise, not objects: they become void in the panoptic
# labels, so that no evaluation counts them.
MIN_COMPONENT_AREA = 20

CATEGORIES: list[Category] = [
    {"id": 1, "name": "sky", "isthing": 0, "color": [128, 128, 128]},
    {"id": 2, "name": "building", "isthing": 0, "color": [128, 0, 0]},
    {"id": 3, "name": "pole", "isthing": 0, "color": [192, 192, 128]},
    {"id": 4, "name": "road", "isthing": 0, "color": [128, 64, 128]},
    {"id": 5, "name": "pavement", "isthing": 0, "color": [60, 40, 222]},
    {"id": 6, "name": "tree", "isthing": 0, "color": [128, 128, 0]},
    {"id": 7, "name": "sign symbol", "isthing": 0, "color": [192, 128, 128]},
    {"id": 8, "name": "fence", "isthing": 0, "color": [64, 64, 128]},
    {"id": 9, "name": "car", "isthing": 1, "color": [64, 0, 128]},
    {"id": 10, "name": "pedestrian", "isthing": 1, "color": [64, 64, 0]},
    {"id": 11, "name": "bicyclist", "isthing": 1, "color": [0, 128, 192]},
]

_EXPECTED = (
    "CamVid in SegNet's split: {train,val,test}/NAME.png (or .jpg) and "
    "{train,val,test}annot/NAME.png"
)


def register_camvid(root: Path) -> None:
    """Register ``camvid_sem_seg_*`` and ``camvid_panoptic_*`` below ``root``."""
    for name in SPLITS:
        split = PanopticSplit.below(root / "camvid", name)
        register_panoptic(f"camvid_panoptic_{name}", split, CATEGORIES)
        register(
            f"camvid_sem_seg_{name}",
            lambda split=split: _load_semantic(split),
            image_root=str(split.image_root),
            sem_seg_root=str(split.sem_seg_root),
            panoptic_json=str(split.panoptic_json),
            stuff_classes=[category["name"] for category in CATEGORIES],
            stuff_colors=[category["color"] for category in CATEGORIES],
            evaluator_type="sem_seg",
            labelled_for=SEMANTIC,
            required_files=("image_root", "panoptic_json", "sem_seg_root"),
            ignore_label=IGNORE_LABEL,
        )


def _load_semantic(split: PanopticSplit) -> list[Record]:
    keys = ("file_name", "image_id", "height", "width", "sem_seg_file_name")
    return [{key: d[key] for key in keys} for d in load_panoptic(split, CATEGORIES)]


def prepare_camvid(source: Path, target: Path) -> dict[str, dict[str, int]]:
    """Write CamVid's images, semantic and panoptic labels for all three splits.

    Args:
        source: the tree of SegNet's split; labels are 0..10, 11 is unlabelled.
        target: folder to write to. Images are copied, unless it is ``source``.

    Returns:
        For each split, what was written: images, instances of each thing, specks left void.

    Raises:
        UserError: a file missing or unreadable, a label out of range, sizes that differ.
    """
    pairs = {
        name: image_pairs(source / name, source / f"{name}annot", ".png", _EXPECTED)
        for name in SPLITS
    }
    return {name: _prepare_split(pairs[name], target, name) for name in SPLITS}


def _prepare_split(pairs: Sequence[tuple[Path, Path]], target: Path, name: str) -> dict[str, int]:
    split = PanopticSplit.below(target, name)
    writer = PanopticWriter(split, CATEGORIES)
    things = {category["id"]: category["name"] for category in CATEGORIES if category["isthing"]}
    counts = {"images": len(pairs), **dict.fromkeys(things.values(), 0)}
    specks = 0
    for image, label in tqdm(pairs, desc=f"camvid {name}", disable=None):
        labels = read_labels(str(label))
        check_same_size(image, read_image(str(image), "RGB"), label, labels)
        check_range(label, labels, SOURCE_UNLABELLED, "0..10 for the classes, 11 for unlabelled")
        sem_seg = np.where(labels == SOURCE_UNLABELLED, IGNORE_LABEL, labels).astype(np.uint8)
        panoptic, category_ids, specks_here = panoptic_from_semantic(sem_seg)
        copy_file(image, split.image_root / image.name)
        writer.add(image.name, sem_seg, panoptic, category_ids)
        specks += specks_here
        for category_id in category_ids.values():
            if category_id in things:
                counts[things[category_id]] += 1
    writer.finish()
    return {**counts, f"specks below {MIN_COMPONENT_AREA} pixels left void": specks}


def panoptic_from_semantic(sem_seg: np.ndarray) -> tuple[np.ndarray, dict[int, int], int]:
    """Turn a semantic label into a panoptic one: a segment per stuff class and per component of a
    thing class.

    Args:
        sem_seg: (H, W) uint8, contiguous class ids, 255 for void.

    Returns:
        segment ids (H, W) int32 with 0 for void; the category id of each segment id; the number of
        components with fewer than ``MIN_COMPONENT_AREA`` pixels, which were left void.
    """
    panoptic = np.zeros(sem_seg.shape, dtype=np.int32)
    category_ids: dict[int, int] = {}
    specks = 0
    for class_id, category in enumerate(CATEGORIES):
        mask = sem_seg == class_id
        if not mask.any():
            continue
        first = len(category_ids) + 1
        if category["isthing"]:
            components, number = ndimage.label(mask, structure=np.ones((3, 3)))
            areas = np.bincount(components.ravel(), minlength=number + 1)
            kept = np.flatnonzero(areas[1:] >= MIN_COMPONENT_AREA) + 1
            specks += number - len(kept)
            new_ids = np.zeros(number + 1, dtype=np.int32)
            new_ids[kept] = np.arange(first, first + len(kept))
            panoptic[mask] = new_ids[components[mask]]
            category_ids.update(dict.fromkeys(range(first, first + len(kept)), category["id"]))
        else:
            panoptic[mask] = first
            category_ids[first] = category["id"]
    return panoptic, category_ids, specks


def _notes(folder: Path) -> Iterator[str]:
    yield "instances are connected components: touching objects of a class count as one"


declare(
    DatasetDeclaration(
        name="camvid",
        how_to_get={"camvid_*": "make it with python datasets/prepare.py camvid SRC"},
        register=register_camvid,
        preparation=Preparation(
            summary="images, semantic labels, and panoptic ones from connected components",
            source_help="CamVid in SegNet's split: {train,val,test}/ and {train,val,test}annot/",
            folder="camvid",
            folder_help="folder to write to, images included",
            prepare=prepare_camvid,
            notes=_notes,
        ),
    )
)
