"""Errors in training that one line explains, without a traceback."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ddep.errors import Stopped, UserError, one_line
from ddep.files import is_full_disk


def needs_traceback(error: BaseException | None) -> bool:
    """False for an error that is reported in one line."""
    explained = isinstance(error, (UserError, FloatingPointError, Stopped))
    return not (explained or is_full_disk(error) or _is_dead_worker(error) or _is_one_value(error))


@contextlib.contextmanager
def explained(folder: str) -> Iterator[None]:
    """Turn a full disk and other errors with a known cause into a UserError that says what to do.

    Args:
        folder: the run's output folder.

    Raises:
        UserError: the disk is full, a worker process of a data loader died, or a batch norm has one
            value per channel.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
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
        if _is_one_value(error):
            raise UserError(
                f"a batch norm cannot train: {one_line(error)}; give it more images (raise "
                "SOLVER.IMS_PER_BATCH, lower SOLVER.ACCUMULATION_STEPS) or larger ones"
            ) from error
        raise


def _is_dead_worker(error: BaseException | None) -> bool:
    # torch raises it from a signal handler, so at any line of the main process.
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def _is_one_value(error: BaseException | None) -> bool:
    # Of torch's batch norms in training, whose input has one value per channel.
    return isinstance(error, ValueError) and str(error).startswith("Expected more than 1 value")
