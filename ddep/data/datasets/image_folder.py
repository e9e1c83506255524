"""``images:<folder>``: any folder of images as a data set without labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ddep.data.datasets.catalog import dataset_root, register
from ddep.errors import UserError

PREFIX = "images:"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_PROGRESS_EVERY = 100_000

logger = logging.getLogger(__name__)


def register_image_folder(name: str) -> None:
    """Register ``images:<folder>``. Nothing is looked at before its dicts are asked for."""
    register(name, lambda: load_image_folder(name), evaluator_type="images")


def check_image_folder(name: str) -> None:
    """Raise UserError unless ``images:<folder>`` names a folder with at least one image."""
    folder = _resolve(name)
    if next(_walk(folder), None) is None:
        raise _no_images(folder)


def load_image_folder(name: str) -> list[dict[str, Any]]:
    """List the images of ``images:<folder>``, at any depth, without opening them.

    The folder is absolute, or relative to the working directory or else to $DETECTRON2_DATASETS.

    Returns:
        One dict per image, sorted by ``image_id``, its path relative to the folder (with ``/``);
        ``file_name`` is its path.

    Raises:
        UserError: no such folder, or no images in it.
    """
    folder = _resolve(name)
    paths = _list(folder)
    logger.info("%s: %d images in %s", name, len(paths), folder)
    return [{"file_name": os.path.join(folder, path), "image_id": path} for path in paths]


def find_images(folder: Path) -> list[str]:
    """The paths of all images below ``folder``, sorted, found by their endings (``SUFFIXES``).

    Hidden files and folders are skipped. Links are followed, but no folder is entered twice.

    Raises:
        UserError: no such folder, no images in it, or a folder that may not be listed.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} {found}; expected a folder of images")
    return [os.path.join(folder, path) for path in _list(folder)]


def _list(folder: Path) -> list[str]:
    paths: list[str] = []
    for path in _walk(folder):
        paths.append(path)
        if len(paths) % _PROGRESS_EVERY == 0:
            logger.info("%d images found so far in %s", len(paths), folder)
    if not paths:
        raise _no_images(folder)
    return sorted(paths)


def _resolve(name: str) -> Path:
    given = name[len(PREFIX) :]
    if not given:
        raise UserError(f"data set {name!r} names no folder; write images:<folder>")
    folder = Path(given).expanduser()
    places = list(dict.fromkeys([folder.absolute(), (dataset_root() / folder).absolute()]))
    for place in places:
        if place.is_dir():
            return place
    for place in places:
        if place.exists():
            raise UserError(f"data set {name}: {place} is a file; expected a folder of images")
    looked = " and ".join(map(str, places))
    raise UserError(f"data set {name}: there is no such folder; looked for {looked}")


def _no_images(folder: Path) -> UserError:
    return UserError(
        f"no images in {folder} or the folders in it; expected files that end in "
        f"{' '.join(SUFFIXES)}"
    )


def _walk(folder: Path) -> Iterator[str]:
    """Relative paths of the images below ``folder``, with ``/``.

    Folders come in the order of their names, so that of two ways to one folder the same is taken
    everywhere; the images inside a folder come in no order.
    """
    entered: set[tuple[int, int]] = set()
    pending = [""]
    while pending:
        prefix = pending.pop()
        path = os.path.join(folder, prefix)
        subfolders: list[str] = []
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        subfolders.append(f"{prefix}{entry.name}/")
                    elif entry.name.lower().endswith(SUFFIXES):
                        yield prefix + entry.name
        except OSError as error:
            raise UserError(f"{path}: cannot be listed ({error.strerror})") from error
        pending.extend(sorted(subfolders, reverse=True))
