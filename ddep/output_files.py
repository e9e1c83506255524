"""Check and write the files that tools make."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ddep.errors import UserError
from ddep.files import atomic_write


def check_replaces_nothing(
    option: str, path: str, inputs: Mapping[str, str], *, overwrite: bool
) -> None:
    """Raise :class:`UserError` if writing the file ``path`` would destroy something.

    Args:
        option: the command-line option that ``path`` is the value of.
        path: the file to be written.
        inputs: files that are read, by the options that name them; never to be replaced.
        overwrite: whether another existing file may be replaced.
    """
    for name, file in inputs.items():
        if os.path.exists(path) and os.path.exists(file) and os.path.samefile(path, file):
            raise UserError(f"{option} {path} is {name}; choose another name")
    _check_is_file_name(option, path)
    if os.path.exists(path) and not overwrite:
        raise UserError(f"{option} {path} exists; choose another name or add --overwrite")


def check_writable(option: str, path: str) -> None:
    """Raise :class:`UserError` if the file ``path``, the value of ``option``, cannot be written.

    Makes its folder if needed.
    """
    _check_is_file_name(option, path)
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{option} {path} cannot be written: its folder cannot be made ({error.strerror}); "
            "choose another folder"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"{option} {path} cannot be written: its folder is read-only; choose another folder"
        )


def _check_is_file_name(option: str, path: str) -> None:
    if os.path.isdir(path) or not os.path.basename(path):
        raise UserError(f"{option} {path} is a folder; name a file in it")


def write_json(path: str, content: Any) -> None:
    """Write ``content`` as an indented JSON file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
