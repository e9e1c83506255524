"""Errors in training that one line explains, without a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ddep.errors import Stopped, UserError, one_line
from ddep.files import is_full_disk


def needs_traceback(error: BaseException | None) -> bool:
    """False for an error that is reported in one line."""
    explained = isinstance(error, (UserError, FloatingPointError, Stopped))
    return not (explained or is_full_disk(error) or _is_dead_worker(error))


@contextlib.contextmanager
def explained(folder: str) -> Iterator[None]:
    """Turn a full disk or a dead data loader worker into a UserError that says what to do.

    Args:
        folder: the run's output folder.

    Raises:
        UserError: the disk is full, or a worker process of a data loader died.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if is_full_disk(error):
            raise UserError(
                f"{folder} cannot be written: {error.strerror}; free some space, then --resume "
                "continues from the last checkpoint"
            ) from error
        if _is_dead_worker(error):
            raise UserError(
                f"a process that loads images died, perhaps for lack of memory: {one_line(error)}; "
                "lower DATALOADER.NUM_WORKERS, then --resume continues from the last checkpoint"
            ) from error
        raise


def _is_dead_worker(error: BaseException | None) -> bool:
    # torch raises it from a signal handler, so at any line of the main process.
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")
