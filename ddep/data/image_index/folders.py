"""List a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from ddep.data.image_index.containers import (
    SUFFIXES,
    UNSETTLED,
    Container,
    Listing,
    container_of_video,
    without_tar_suffix,
)
from ddep.data.image_index.strings import Strings
from ddep.data.video_capture import is_video

logger = logging.getLogger(__name__)

# Progress is reported in steps of this many images.
_STEP = 10_000


def list_folder(root: str, folder: Container, found: Callable[[int], None]) -> Listing:
    """List the images, folders, tar files and videos in ``folder``, by their endings.

    Hidden ones are skipped.

    A folder ``x`` takes precedence over ``x.tar``.

    Args:
        root: paths are relative to it.
        folder: the folder.
        found: called with the number of further images found.

    Raises:
        OSError: it cannot be listed.
    """
    images: list[str] = []
    folders: set[str] = set()
    tars: list[str] = []
    videos: list[str] = []
    told = 0
    with os.scandir(folder.path(root)) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_dir():
                folders.add(name)
            elif name.lower().endswith(SUFFIXES):
                images.append(name)
                if len(images) - told == _STEP:
                    found(_STEP)
                    told = len(images)
            elif without_tar_suffix(name) is not None:
                tars.append(name)
            elif is_video(name):
                videos.append(name)
    found(len(images) - told)
    children = {f"{folder.prefix}{name}/": "" for name in folders}
    for name in sorted(tars):
        prefix = f"{folder.prefix}{without_tar_suffix(name)}/"
        if prefix in children:
            other = children[prefix] or prefix
            logger.warning(f"{root}: {folder.prefix}{name} is left out, {other} is used instead")
        else:
            children[prefix] = f"{folder.prefix}{name}"
    containers = [Container(prefix, file) for prefix, file in children.items()]
    containers += [container_of_video(folder.prefix + name) for name in videos]
    return Listing(UNSETTLED, Strings.pack(sorted(images)), sorted(containers))
