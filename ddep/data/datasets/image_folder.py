"""``images:<folder>``: any folder of images and videos as a data set without labels."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from ddep.data.datasets.catalog import possible_paths, register
from ddep.data.image_index import (
    FRAME_RATE,
    SUFFIXES,
    ImageIndex,
    list_images,
    open_index,
    without_tar_suffix,
)
from ddep.data.video_capture import SUFFIXES as VIDEO_SUFFIXES
from ddep.data.video_capture import is_video
from ddep.errors import UserError

PREFIX = "images:"
# images:<folder>@<number>fps takes so many frames a second from videos, not FRAME_RATE.
_WITH_RATE = re.compile(r"(.+)@(-?[\d.]+)fps", re.DOTALL)
_MAX_RATE = 1000.0

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
    may also be a tar file or a video; tar files in the folder count as folders. Of videos, one
    frame a second is an image; ``images:<folder>@5fps`` takes five.

    Returns:
        A sequence of one record per image, sorted by ``image_id``, its path relative to the folder
        (with ``/``); ``file_name`` is its path, or the name by which ``PathManager`` opens it in a
        tar file or a video. The records come from an index that is built the first time.

    Raises:
        UserError: no such folder, no images in it; a folder that cannot be listed, a damaged tar
            file; an impossible number of frames a second.
    """
    source, index = _open(name)
    logger.info("%s: %d images in %s", name, len(index), source)
    return index


def find_images(folder: Path) -> list[str]:
    """The paths of all images below ``folder``, sorted, found by their endings (``SUFFIXES``).

    Skips hidden files and folders, tar files and videos. Follows links, but enters no folder twice.

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
    given, frame_rate = _split(name)
    source = _resolve(name, given)
    index = open_index(source, frame_rate)
    if len(index):
        return source, index
    damaged = index.damaged_videos()
    if damaged:
        raise UserError(
            f"no images in {source}, and none of its videos ({len(damaged)}) can be read; the "
            f"first: {next(iter(damaged.values()))}"
        )
    raise _no_images(source)


def _split(name: str) -> tuple[str, float]:
    """The folder, and the frames a second that are taken from videos."""
    given = name[len(PREFIX) :]
    if not given:
        raise UserError(f"data set {name!r} names no folder; write images:<folder>")
    found = _WITH_RATE.fullmatch(given)
    if found is None:
        return given, FRAME_RATE
    try:
        frame_rate = float(found[2])
    except ValueError:
        frame_rate = 0.0
    if not 0 < frame_rate <= _MAX_RATE:
        raise UserError(
            f"data set {name} takes {found[2]!r} frames a second from videos; expected a number "
            f"above 0 and up to {_MAX_RATE:g}, as in {PREFIX}{found[1]}@0.5fps"
        )
    return found[1], frame_rate


def _resolve(name: str, given: str) -> Path:
    """The absolute path of the folder, tar file or video."""
    places = possible_paths(given)
    for place in places:
        if place.is_dir() or (place.is_file() and _holds_images(place.name)):
            return place
    for place in places:
        if place.exists():
            raise UserError(
                f"data set {name}: {place} is a file; expected a folder of images and videos, a "
                "tar file or a video"
            )
    looked = " and ".join(map(str, places))
    raise UserError(f"data set {name}: there is no such folder; looked for {looked}")


def _holds_images(name: str) -> bool:
    return without_tar_suffix(name) is not None or is_video(name)


def _no_images(source: Path) -> UserError:
    return UserError(
        f"no images in {source} or the folders in it; expected files that end in "
        f"{' '.join(SUFFIXES)}, or videos that end in {' '.join(VIDEO_SUFFIXES)}"
    )
