"""Exceptions that users cause: mistakes in the input, and stopping a run."""

from __future__ import annotations

import re


class UserError(Exception):
    """A mistake in the input that one line explains.

    The message names the file or key, what was found, what was expected and what to do. Programs
    print it without a traceback and exit with status 1.
    """


class Stopped(Exception):
    """Training stopped cleanly because a signal asked for it; the message says where.

    Attributes:
        signum: number of the signal.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message, signum)
        self.signum = signum

    def __str__(self) -> str:
        return str(self.args[0])


def one_line(error: BaseException) -> str:
    """The message of ``error`` as one line.

    An error from a data loader's worker process has a whole traceback as its message, which ends in
    ``package.module.UserError: message``; only the last part is returned.
    """
    lines = str(error).strip().splitlines()
    if len(lines) > 1:
        raised = re.match(r"[\w.]+Error: (.*)", lines[-1])
        if raised:
            return raised[1]
    return " ".join(str(error).split())
