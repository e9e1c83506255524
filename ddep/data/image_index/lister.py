"""List containers, or reuse their stored listings if these are still valid."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence

from ddep.data.image_index.containers import UNSETTLED, Container, Listing, status_of
from ddep.data.image_index.folders import list_folder
from ddep.data.image_index.stored import StoredListings
from ddep.data.image_index.strings import Strings
from ddep.data.image_index.tars import CompressedTarError, list_tar
from ddep.data.image_index.videos import FRAME_RATE, list_video
from ddep.data.image_index.walking import Run, walk
from ddep.data.video_capture import is_video
from ddep.errors import UserError

logger = logging.getLogger(__name__)

# A container that changed less than this before it was listed may change again and keep its times:
# the clocks of file systems are coarse, and those of file servers differ by seconds.
_SETTLING_NS = 10 * 10**9


class Lister:
    """Finds the listing of each container, once even if links lead to it again."""

    def __init__(
        self,
        root: str,
        stored: Sequence[StoredListings] = (),
        found: Callable[[int], None] = lambda number: None,
        files: bool = True,
        frame_rate: float = FRAME_RATE,
    ) -> None:
        """
        Args:
            root: paths are relative to it.
            stored: listings that may still be valid.
            found: called with the number of further images found.
            files: whether to look into tar files and videos.
            frame_rate: frames a second that are listed of videos.
        """
        self.containers = 0
        self.listed = 0  # containers without a valid stored listing
        self.images = 0
        self.compressed: list[CompressedTarError] = []
        self._root = root
        self._stored = stored
        self._found = found
        self._files = files
        self._frame_rate = frame_rate
        self._entered: set[tuple[int, int, int]] = set()

    def __call__(self, container: Container) -> Listing | None:
        """List a container; None if it was listed before, is gone, or is a compressed tar file.

        Raises:
            UserError: it cannot be listed.
        """
        if container.file and not self._files:
            return None
        path = container.path(self._root)
        started = time.time_ns()
        try:
            status = os.stat(path)
            place = status.st_dev, status.st_ino, container.offset
            if place in self._entered:
                return None
            self._entered.add(place)
            listing = self._find(container, status, started)
        except CompressedTarError as error:
            logger.warning(f"{error}; left out")
            self.compressed.append(error)
            return None
        except FileNotFoundError as error:
            if container.prefix:  # removed meanwhile, or a broken link
                logger.warning(f"{path} is gone; left out")
                return None
            raise _not_listed(path, error) from error
        except OSError as error:
            raise _not_listed(path, error) from error
        if listing.problem:
            logger.warning(f"{listing.problem}; {len(listing.names)} of its frames are used")
        self.containers += 1
        self.images += len(listing.names)
        return listing

    def _find(self, container: Container, found: os.stat_result, started: int) -> Listing:
        status = status_of(found)
        for stored in self._stored:
            listing = stored.find(container, status)
            if listing is not None:
                self._found(len(listing.names))
                return listing
        self.listed += 1
        listing = self._list(container)
        is_settled = max(found.st_mtime_ns, found.st_ctime_ns) < started - _SETTLING_NS
        listing.status = status if is_settled else UNSETTLED
        return listing

    def _list(self, container: Container) -> Listing:
        if not container.file:
            return list_folder(self._root, container, self._found)
        if is_video(container.file):
            return list_video(self._root, container, self._found, self._frame_rate)
        return list_tar(self._root, container, self._found)


def _not_listed(path: str, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be listed ({error.strerror})")


def list_images(folder: str) -> list[str]:
    """The sorted names of all images below ``folder``, except those in tar files and videos.

    Raises:
        UserError: a folder cannot be listed.
    """
    units: list[Strings] = []
    prefixes: list[str] = []
    names: list[str] = []
    for part in walk(Container(""), Lister(folder, files=False)):
        if isinstance(part, Run):
            unit = units[part.unit]
            names += [prefixes[part.unit] + unit[i] for i in range(part.start, part.stop)]
        else:
            units.append(part.listing.names)
            prefixes.append(part.container.prefix)
    return names
