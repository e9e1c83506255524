"""The one exception that means "the user can mend this"."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the input that one line explains.

    The message names the file or key, what was found, what was expected and what to do. Programs
    print it without a traceback and exit with status 1.
    """
