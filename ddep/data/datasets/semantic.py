"""Semantic data sets: a folder of images, and one of label images with the same names."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ddep.data.datasets.catalog import register
from ddep.data.datasets.label_kinds import SEMANTIC
from ddep.data.datasets.panoptic import IGNORE_LABEL
from ddep.data.record import Record
from ddep.errors import UserError, one_line

logger = logging.getLogger(__name__)


def register_semantic(
    name: str,
    image_root: Path,
    sem_seg_root: Path,
    classes: Sequence[str],
    ignore_label: int = IGNORE_LABEL,
    label_extension: str = "png",
    colors: Sequence[Sequence[int]] | None = None,
    image_extension: str = "jpg",
    names_file: Path | None = None,
    leave_out_unpaired: bool = False,
    **metadata: Any,
) -> None:
    """Register a semantic data set, with the metadata that the evaluator of mean IoU reads.

    Args:
        name: what configs call it.
        image_root: folder of the images, NAME.jpg; nothing is opened before the records are needed.
        sem_seg_root: folder of the label images; their pixels are indices into ``classes``.
        classes: names of the classes.
        ignore_label: the label of void pixels.
        label_extension: label images are NAME.<this>.
        colors: [R, G, B] of each class, 0..255.
        image_extension: images are NAME.<this>.
        names_file, leave_out_unpaired: see :func:`load_semantic`.
        metadata: further attributes.
    """
    if colors is not None:
        metadata["stuff_colors"] = [list(color) for color in colors]
    required_files = ("image_root", "sem_seg_root")
    if names_file is not None:
        metadata["names_file"] = str(names_file)
        required_files += ("names_file",)
    register(
        name,
        lambda: load_semantic(
            image_root,
            sem_seg_root,
            label_extension,
            image_extension,
            names_file,
            leave_out_unpaired,
        ),
        image_root=str(image_root),
        sem_seg_root=str(sem_seg_root),
        stuff_classes=list(classes),
        evaluator_type="sem_seg",
        labelled_for=SEMANTIC,
        required_files=required_files,
        ignore_label=ignore_label,
        **metadata,
    )


def load_semantic(
    image_root: Path,
    sem_seg_root: Path,
    label_extension: str = "png",
    image_extension: str = "jpg",
    names_file: Path | None = None,
    leave_out_unpaired: bool = False,
) -> list[Record]:
    """Pair the images of one folder with the labels of another.

    Args:
        image_root: folder of the images, NAME.<image_extension>.
        sem_seg_root: folder of the labels, NAME.<label_extension>.
        label_extension, image_extension: without the dot.
        names_file: a text file with one NAME per line: the images of the data set. The folders may
            hold more files. By default all are used.
        leave_out_unpaired: whether to leave out images without a label and labels without an image,
            with a warning, instead of raising an error.

    Returns:
        One record per image, sorted by name: file_name and sem_seg_file_name.

    Raises:
        UserError: no labels, an image without a label or a label without an image; a missing or
            empty ``names_file``.
    """
    images = _by_name(image_root, image_extension)
    labels = _by_name(sem_seg_root, label_extension)
    if not labels:
        raise UserError(
            f"{sem_seg_root}: no .{label_extension} files in it; expected the labels of the images "
            f"in {image_root}, see datasets/README.md"
        )
    if names_file is not None:
        names = _read_names(names_file)
        _check_listed(names_file, names, image_root, image_extension, images)
        _check_listed(names_file, names, sem_seg_root, label_extension, labels)
    else:
        names = images.keys() & labels.keys()
        unpaired = sorted(images.keys() ^ labels.keys())
        if unpaired:
            path, folder = images.get(unpaired[0]), sem_seg_root
            if path is None:
                path, folder = labels[unpaired[0]], image_root
            problem = f"{path} has no file of that name in {folder}"
            if not (leave_out_unpaired and names):
                raise UserError(
                    f"{problem}; each image needs its label: prepare the data set again, see "
                    "datasets/README.md"
                )
            logger.warning(
                f"{problem}; {len(unpaired)} such files are left out, see datasets/README.md"
            )
    return [
        {"file_name": str(images[name]), "sem_seg_file_name": str(labels[name])}
        for name in sorted(names)
    ]


def _read_names(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or one_line(error)
        raise UserError(
            f"{path} cannot be read ({cause}); prepare the data set again, see datasets/README.md"
        ) from error
    names = {line.strip() for line in lines} - {""}
    if not names:
        raise UserError(f"{path} lists no images; prepare the data set again")
    return names


def _check_listed(
    names_file: Path, names: set[str], folder: Path, extension: str, found: Mapping[str, Path]
) -> None:
    for name in sorted(names - found.keys()):
        raise UserError(
            f"{folder / f'{name}.{extension}'} does not exist, but {names_file} lists {name}; "
            "prepare the data set again, see datasets/README.md"
        )


def _by_name(folder: Path, extension: str) -> dict[str, Path]:
    paths = folder.glob(f"*.{extension}")
    return {path.stem: path for path in paths if not path.name.startswith(".")}
