"""Tell how far indexing is: a bar on a terminal, now and then a line in the log."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from tqdm import tqdm

logger = logging.getLogger(__name__)

_LOG_EVERY = 100_000


class Progress:
    """Counts images."""

    def __init__(self, root: str, bar: tqdm) -> None:
        self._root = root
        self._bar = bar
        self._images = 0

    def found(self, number: int) -> None:
        """``number`` more images were found."""
        before, self._images = self._images, self._images + number
        self._bar.update(number)
        for images in range(before // _LOG_EVERY + 1, self._images // _LOG_EVERY + 1):
            logger.info(f"{images * _LOG_EVERY} images found so far in {self._root}")


@contextlib.contextmanager
def show_progress(root: str) -> Iterator[Progress]:
    """Show the progress of indexing ``root`` as long as the context lasts."""
    with tqdm(desc="indexing", unit="image", unit_scale=True, disable=None) as bar:
        yield Progress(root, bar)
