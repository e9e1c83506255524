"""Semantic data sets: a folder of images and one of label images of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.data.datasets import load_sem_seg

from ddep.data.datasets.catalog import register
from ddep.data.datasets.panoptic import IGNORE_LABEL


def register_semantic(
    name: str,
    image_root: Path,
    sem_seg_root: Path,
    classes: Sequence[str],
    ignore_label: int = IGNORE_LABEL,
    label_extension: str = "png",
    colors: Sequence[Sequence[int]] | None = None,
) -> None:
    """Register a semantic data set, with the metadata that the evaluator of mean IoU reads.

    Args:
        name: what configs call it.
        image_root: folder of the images, NAME.jpg. Nothing is opened before the dicts are asked
            for.
        sem_seg_root: folder of the label images; their pixels are places in ``classes``.
        classes: names of the classes.
        ignore_label: the label of void pixels.
        label_extension: label images are NAME.<this>.
        colors: [R, G, B] of each class, 0..255.
    """
    metadata = {} if colors is None else {"stuff_colors": [list(color) for color in colors]}
    register(
        name,
        lambda: load_sem_seg(
            str(sem_seg_root), str(image_root), gt_ext=label_extension, image_ext="jpg"
        ),
        image_root=str(image_root),
        sem_seg_root=str(sem_seg_root),
        stuff_classes=list(classes),
        evaluator_type="sem_seg",
        ignore_label=ignore_label,
        **metadata,
    )
