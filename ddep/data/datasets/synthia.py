"""SYNTHIA-RAND-CITYSCAPES: rendered street scenes, 16 of Cityscapes' 19 classes.

It lacks terrain, trucks and trains. Labels still have Cityscapes' 19 numbers, so that models can
train on it together with other sets and be evaluated on Cityscapes. Results are usually reported on
16 and 13 classes: ``mIoU16`` and ``mIoU13``.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ddep.data.datasets.cityscapes_classes import label_table, register_19_classes
from ddep.data.datasets.declaration import WORKERS, DatasetDeclaration, Preparation, declare
from ddep.data.datasets.label_preparation import LabelJob, write_labels, write_names
from ddep.data.datasets.preparation import check_range, image_pairs
from ddep.errors import UserError

# SYNTHIA's numbers. The others are void, parking slots (13), road works (14) and lane markings.
_CLASS_OF_ID = {
    1: "sky",
    2: "building",
    3: "road",
    4: "sidewalk",
    5: "fence",
    6: "vegetation",
    7: "pole",
    8: "car",
    9: "traffic sign",
    10: "person",
    11: "bicycle",
    12: "motorcycle",
    15: "traffic light",
    16: "terrain",
    17: "rider",
    18: "truck",
    19: "bus",
    20: "train",
    21: "wall",
}
_HIGHEST_CLASS = 22
_LABEL_OF_CLASS = label_table(_CLASS_OF_ID, _HIGHEST_CLASS)
_LABELS = "labels_19"
ALL = "all"
# Lists of the images of RobustNet's split (arXiv 2103.15597), from its repository.
SPLITS = {"train": "synthia_split_train.txt", "val": "synthia_split_val.txt"}
_EXPECTED = "SYNTHIA-RAND-CITYSCAPES: RGB/NAME.png and GT/LABELS/NAME.png"


def register_synthia(root: Path) -> None:
    """Register ``synthia_sem_seg_{all,train,val}`` below ``root``.

    There is no official split.
    """
    folder = root / "RAND_CITYSCAPES"
    for split in (ALL, *SPLITS):
        register_19_classes(
            f"synthia_sem_seg_{split}",
            folder / "RGB",
            folder / _LABELS,
            image_extension="png",
            names_file=folder / f"{split}.txt",
        )


def prepare_synthia(folder: Path, workers: int) -> dict[str, dict[str, int]]:
    """Write labels of Cityscapes' 19 classes, and the names of the images of each split.

    The splits need RobustNet's two lists; without one, its split is left out.

    Args:
        folder: RAND_CITYSCAPES, with ``RGB`` and ``GT/LABELS``, which are not changed.
        workers: number of processes.

    Returns:
        For each split, the number of images.

    Raises:
        UserError: a file missing or unreadable, a label out of range, sizes that differ.
    """
    pairs = image_pairs(folder / "RGB", folder / "GT" / "LABELS", ".png", _EXPECTED)
    there = {image.stem for image, _ in pairs}
    splits = {ALL: there, **_read_splits(folder)}
    for split in (ALL, *SPLITS):
        (folder / f"{split}.txt").unlink(missing_ok=True)
    jobs = [LabelJob(image, labels, folder / _LABELS / labels.name) for image, labels in pairs]
    write_labels(jobs, read_synthia, workers, "synthia")
    counts = {}
    for split, names in splits.items():
        write_names(folder / f"{split}.txt", names & there)
        missing = len(names - there)
        counts[split] = {
            "images": len(names & there),
            **({"not there": missing} if missing else {}),
        }
    return counts


def _read_splits(folder: Path) -> dict[str, set[str]]:
    """Names of the images of each split whose list is there: lines such as ``0000001.png``."""
    return {
        split: {Path(line).stem for line in (folder / name).read_text("utf-8").split()}
        for split, name in SPLITS.items()
        if (folder / name).exists()
    }


def read_synthia(path: Path) -> np.ndarray:
    """Read one of the original label images: 16 bits, the class is red, the instance green.

    Returns:
        (H, W) uint8, 0..18 or 255 for void.
    """
    # Pillow keeps only eight of a colour's 16 bits.
    coded = cv2.imdecode(np.frombuffer(path.read_bytes(), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if coded is None:
        raise UserError(f"label image {path} cannot be read: it is damaged")
    if coded.dtype != np.uint16 or coded.ndim != 3 or coded.shape[2] != 3:
        raise UserError(
            f"label image {path} has pixels of {coded.dtype} and shape {coded.shape}; expected "
            "SYNTHIA's GT/LABELS: 16-bit colours, of which red is the class"
        )
    red = coded[..., 2]
    check_range(path, red, _HIGHEST_CLASS, f"SYNTHIA's numbers, 0..{_HIGHEST_CLASS}")
    return _LABEL_OF_CLASS[red]


declare(
    DatasetDeclaration(
        name="synthia",
        how_to_get={
            "synthia_sem_seg_all": "unpack SYNTHIA-RAND-CITYSCAPES, then run python "
            "datasets/prepare.py synthia",
            "synthia_*": "unpack SYNTHIA-RAND-CITYSCAPES, put RobustNet's "
            f"{' and '.join(SPLITS.values())} beside RGB, then run python datasets/prepare.py "
            "synthia",
        },
        register=register_synthia,
        preparation=Preparation(
            summary="labels of Cityscapes' 19 classes",
            folder="RAND_CITYSCAPES",
            folder_help="with RGB/ and GT/LABELS/; labels_19/ is written into it",
            prepare=prepare_synthia,
            options=WORKERS,
        ),
    )
)
