"""Semantic data sets: a folder of images and one of label images of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddep.data.datasets.catalog import register
from ddep.data.datasets.panoptic import IGNORE_LABEL
from ddep.errors import UserError


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
        lambda: load_semantic(image_root, sem_seg_root, label_extension),
        image_root=str(image_root),
        sem_seg_root=str(sem_seg_root),
        stuff_classes=list(classes),
        evaluator_type="sem_seg",
        ignore_label=ignore_label,
        **metadata,
    )


def load_semantic(
    image_root: Path, sem_seg_root: Path, label_extension: str = "png"
) -> list[dict[str, Any]]:
    """Pair the images NAME.jpg of one folder with the labels of another.

    Returns:
        One dict per image, sorted by name: file_name and sem_seg_file_name.

    Raises:
        UserError: no labels, an image without a label or a label without an image.
    """
    images = _by_name(image_root, "jpg")
    labels = _by_name(sem_seg_root, label_extension)
    if not labels:
        raise UserError(
            f"{sem_seg_root}: no .{label_extension} files in it; expected the labels of the images "
            f"in {image_root}, see datasets/README.md"
        )
    for name in sorted(images.keys() ^ labels.keys()):
        path, folder = (
            (images[name], sem_seg_root) if name in images else (labels[name], image_root)
        )
        raise UserError(
            f"{path} has no file of that name in {folder}; each image needs its label: prepare the "
            f"data set again, see datasets/README.md"
        )
    return [
        {"file_name": str(images[name]), "sem_seg_file_name": str(labels[name])}
        for name in sorted(images)
    ]


def _by_name(folder: Path, extension: str) -> dict[str, Path]:
    paths = folder.glob(f"*.{extension}")
    return {path.stem: path for path in paths if not path.name.startswith(".")}
