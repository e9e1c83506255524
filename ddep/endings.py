"""How programs end: messages on stderr and exit statuses."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from ddep.errors import Stopped, UserError, one_line


@contextlib.contextmanager
def errors_as_lines() -> Iterator[None]:
    """Turn user errors and interruptions into one line on stderr and an exit status.

    :class:`UserError`, and the FloatingPointError of diverging training, print ``error: <message>``
    and exit with status 1. :class:`Stopped` prints its message and Ctrl-C ``interrupted``; they
    exit with a shell's status for the signal: 128 plus its number.
    """
    try:
        yield
    except (UserError, FloatingPointError) as error:
        sys.exit(line_of(error))
    except (KeyboardInterrupt, Stopped) as error:
        print(line_of(error), file=sys.stderr, flush=True)
        sys.exit(status_of(error))


def line_of(error: BaseException) -> str:
    """The line to print about ``error``."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, Stopped):
        return one_line(error)
    if isinstance(error, (UserError, FloatingPointError)):
        return f"error: {one_line(error)}"
    return f"error: {type(error).__name__}: {one_line(error)}"


def status_of(error: BaseException) -> int:
    """The exit status of a program after ``error``."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, Stopped):
        return 128 + error.signum
    return 1
