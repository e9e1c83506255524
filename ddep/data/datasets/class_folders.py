"""``classes:<folder>``: a folder of images for each class, as a data set for classification."""

from __future__ import annotations

import contextlib
import logging
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from detectron2.data import MetadataCatalog

from ddep.data.datasets.catalog import register
from ddep.data.datasets.image_folder import PREFIX as IMAGES
from ddep.data.datasets.image_folder import load_image_folder
from ddep.data.datasets.label_kinds import CLASSIFICATION
from ddep.data.record import Record
from ddep.errors import UserError

PREFIX = "classes:"

logger = logging.getLogger(__name__)


def register_class_folders(name: str) -> None:
    """Register ``classes:<folder>``, without looking at the folder yet.

    :func:`check_class_folders` sets its metadata ``classes``, the classes' names.
    """
    register(
        name,
        lambda: load_class_folders(name),
        evaluator_type="classification",
        labelled_for=CLASSIFICATION,
        multi_label=False,
    )


def check_class_folders(name: str) -> None:
    """Find the classes of the registered ``classes:<folder>`` and set its metadata.

    Raises:
        UserError: see :func:`load_class_folders`.
    """
    load_class_folders(name)


def find_class_names(name: str) -> Sequence[str]:
    """The names of a data set's classes of whole images; empty if unknown.

    Args:
        name: of any data set; ``classes:<folder>`` need not be registered, nor exist.
    """
    if name.startswith(PREFIX):
        register_class_folders(name)
        with contextlib.suppress(UserError):
            check_class_folders(name)
    return MetadataCatalog.get(name).get("classes", ())


def load_class_folders(name: str) -> ClassFolders:
    """List the images of ``classes:<folder>`` without opening them (torchvision's layout).

    Each class is a folder in ``<folder>``, with images at any depth. Classes are numbered in the
    order of their folders' names. ``<folder>`` is found and indexed as for ``images:<folder>``; tar
    files count as folders.

    Raises:
        UserError: no such folder, no images in it; an image that is in no class's folder.
    """
    folder = name[len(PREFIX) :]
    if not folder:
        raise UserError(f"data set {name!r} names no folder; write classes:<folder>")
    try:
        records = ClassFolders(load_image_folder(f"{IMAGES}{folder}"))
    except UserError as error:
        message = str(error).removeprefix(f"data set {IMAGES}{folder}: ")
        raise UserError(f"data set {name}: {message}") from error
    logger.info("%s: %d classes", name, len(records.classes))
    MetadataCatalog.get(name).set(classes=records.classes)
    return records


class ClassFolders(Sequence[Record]):
    """The records of images in folders of classes, made on access.

    Each has ``classes``, a list with the index of its class.

    Attributes:
        classes: names of the classes, sorted.
        images: the records without classes.
    """

    def __init__(self, images: Sequence[Record]) -> None:
        """
        Args:
            images: records sorted by ``image_id``, which begins with the class's folder.

        Raises:
            UserError: an image without such a folder.
        """
        self.images = images
        names: list[str] = []
        starts: list[int] = []
        while (start := starts[-1] if starts else 0) < len(images):
            folder, separator, _ = images[start]["image_id"].partition("/")
            if not separator:
                raise UserError(
                    f"{images[start]['file_name']} is beside the folders of the classes; "
                    "expected each image in the folder of its class"
                )
            names.append(folder)
            # "0" follows "/" in ASCII: names before it are in the folder.
            starts.append(bisect_left(images, f"{folder}0", lo=start, key=_image_id))
        self.classes = sorted(names)
        self._starts = np.array([0, *starts])
        self._numbers = np.array([bisect_left(self.classes, name) for name in names])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = operator.index(index)
        record = self.images[position]
        folder = bisect_right(self._starts, position % len(self)) - 1
        return {**record, "classes": [int(self._numbers[folder])]}


_image_id = operator.itemgetter("image_id")
