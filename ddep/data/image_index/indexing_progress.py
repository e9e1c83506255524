"""Show the progress of indexing: a bar on a terminal, and occasional lines in the log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from tqdm import tqdm

logger = logging.getLogger(__name__)

_LOG_EVERY = 100_000


class Progress:
    """Counts the images found so far."""

    def __init__(self, root: str, bar: tqdm) -> None:
        self._root = root
        self._bar = bar
        self._images = 0

    def found(self, number: int) -> None:
        """Add ``number`` images."""
        before, self._images = self._images, self._images + number
        self._bar.update(number)
        for images in range(before // _LOG_EVERY + 1, self._images // _LOG_EVERY + 1):
            logger.info(f"{images * _LOG_EVERY} images found so far in {self._root}")


@contextlib.contextmanager
def show_progress(root: str) -> Iterator[Progress]:
    """Show the progress of indexing ``root`` while the context is open."""
    with tqdm(desc="indexing", unit="image", unit_scale=True, disable=None) as bar:
        yield Progress(root, bar)
