"""ADE20K's semantic labels in the form that detectron2's ``ade20k_sem_seg_*`` reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from ddep.data.datasets.preparation import check_range, image_pairs, write_png
from ddep.data.image_reader import read_labels

NUM_CLASSES = 150
_FOLDERS = {"train": "training", "val": "validation"}
_EXPECTED = "ADEChallengeData2016: {images,annotations}/{training,validation}"


def prepare_ade20k(folder: Path) -> dict[str, dict[str, int]]:
    """Write ``annotations_detectron2``: the labels, shifted so that classes start at 0.

    Args:
        folder: ADEChallengeData2016, whose labels are 1..150, and 0 for unlabelled pixels, which
            become 255.

    Returns:
        Per split, the number of labels.

    Raises:
        UserError: a file missing or unreadable, a label out of range.
    """
    pairs = {
        split: image_pairs(
            folder / "images" / name, folder / "annotations" / name, ".png", _EXPECTED
        )
        for split, name in _FOLDERS.items()
    }
    for split, name in _FOLDERS.items():
        for _, label in tqdm(pairs[split], desc=f"ade20k {split}", disable=None):
            labels = read_labels(str(label))
            check_range(label, labels, NUM_CLASSES, "1..150 for the classes, 0 for unlabelled")
            shifted = labels.astype(np.uint8) - np.uint8(1)  # 0 wraps to 255
            write_png(folder / "annotations_detectron2" / name / label.name, shifted)
    return {split: {"semantic labels": len(pairs[split])} for split in _FOLDERS}
