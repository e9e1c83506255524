"""The one exception that means "the user can mend this"."""

from __future__ import annotations

import re


class UserError(Exception):
    """A mistake in the input that one line explains.

    The message names the file or key, what was found, what was expected and what to do. Programs
    print it without a traceback and exit with status 1.
    """


def one_line(error: BaseException) -> str:
    """The message of ``error`` as one line.

    A data loader's worker process hands an error on with its traceback in the message, which ends
    in ``package.module.UserError: message``; the message alone is returned.
    """
    lines = str(error).strip().splitlines()
    if len(lines) > 1:
        raised = re.match(r"[\w.]+Error: (.*)", lines[-1])
        if raised:
            return raised[1]
    return " ".join(str(error).split())
