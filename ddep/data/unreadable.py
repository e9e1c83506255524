"""Count and log the images that training skips because they cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ddep.errors import UserError

logger = logging.getLogger(__name__)


class UnreadableImages:
    """Counts the unreadable images of a run, each once, and logs their names."""

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: how many images this process may skip (``INPUT.MAX_UNREADABLE``).
        """
        self.limit = limit
        self.found: dict[str, str] = {}  # why each of them cannot be read, by file

    def add(self, found: Mapping[str, str]) -> None:
        """Log the new ones.

        Args:
            found: why each image cannot be read, by file.

        Raises:
            UserError: there are more than the limit.
        """
        for path, message in found.items():
            if path in self.found:
                continue
            self.found[path] = message
            check_limit(self.found, self.limit)
            logger.warning(
                "skipped: %s (unreadable so far: %d; INPUT.MAX_UNREADABLE: %d)",
                message,
                len(self.found),
                self.limit,
            )


def check_limit(unreadable: Mapping[str, str], max_unreadable: int) -> None:
    """Raise :class:`UserError` if there are more than ``INPUT.MAX_UNREADABLE`` unreadable images.

    Args:
        unreadable: why each image cannot be read, by file, the latest last.
        max_unreadable: the limit.
    """
    if len(unreadable) > max_unreadable:
        raise UserError(
            f"{len(unreadable)} training images cannot be read, but INPUT.MAX_UNREADABLE allows "
            f"{max_unreadable}; the last: {list(unreadable.values())[-1]}"
        )
