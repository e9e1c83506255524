"""``images:<folder>``: any folder of images, or tar file, as a data set without labels."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ddep.data.datasets.catalog import possible_paths, register
from ddep.data.image_index import (
    SUFFIXES,
    ImageIndex,
    list_images,
    open_index,
    without_tar_suffix,
)
from ddep.errors import UserError

PREFIX = "images:"

logger = logging.getLogger(__name__)


def register_image_folder(name: str) -> None:
    """Register ``images:<folder>``, without looking at the folder yet."""
    register(name, lambda: load_image_folder(name), evaluator_type="images", labelled_for=())


def check_image_folder(name: str) -> None:
    """Raise UserError unless ``images:<folder>`` names a folder with at least one image.

    Indexes the folder if needed.
    """
    _open(name)


def load_image_folder(name: str) -> ImageIndex:
    """List the images of ``images:<folder>``, at any depth, without opening them.

    The folder is absolute, or relative to the working directory or else to $DETECTRON2_DATASETS. It
    may also be a tar file; tar files in the folder count as folders.

    Returns:
        A sequence of one record per image, sorted by ``image_id``, its path relative to the folder
        (with ``/``); ``file_name`` is its path, or the name by which ``PathManager`` opens it in a
        tar file. The records come from an index that is built the first time.

    Raises:
        UserError: no such folder, no images in it; a folder that cannot be listed, a damaged tar
            file.
    """
    source, index = _open(name)
    logger.info("%s: %d images in %s", name, len(index), source)
    return index


def find_images(folder: Path) -> list[str]:
    """The paths of all images below ``folder``, sorted, found by their endings (``SUFFIXES``).

    Skips hidden files and folders, and tar files. Follows links, but enters no folder twice.

    Raises:
        UserError: no such folder, no images in it, or a folder that cannot be listed.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {found}; expected a folder of images")
    paths = [os.path.join(folder, name) for name in list_images(str(folder))]
    if not paths:
        raise _no_images(folder)
    return paths


def _open(name: str) -> tuple[Path, ImageIndex]:
    source = _resolve(name)
    index = open_index(source)
    if not len(index):
        raise _no_images(source)
    return source, index


def _resolve(name: str) -> Path:
    """The absolute path of the folder or tar file."""
    given = name[len(PREFIX) :]
    if not given:
        raise UserError(f"data set {name!r} names no folder; write images:<folder>")
    places = possible_paths(given)
    for place in places:
        if place.is_dir() or (place.is_file() and without_tar_suffix(place.name) is not None):
            return place
    for place in places:
        if place.exists():
            raise UserError(
                f"data set {name}: {place} is a file; expected a folder of images or a tar file"
            )
    looked = " and ".join(map(str, places))
    raise UserError(f"data set {name}: there is no such folder; looked for {looked}")


def _no_images(source: Path) -> UserError:
    return UserError(
        f"no images in {source} or the folders in it; expected files that end in "
        f"{' '.join(SUFFIXES)}"
    )
