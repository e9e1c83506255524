"""Read JSON files, or say why they cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ddep.errors import UserError


def read_json(path: str | Path, lists: tuple[str, ...] = (), form: str = "COCO's format") -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        lists: keys of lists that the content, then a dict, must have.
        form: the format that has them, for the error message.

    Raises:
        UserError: missing, not JSON, or without one of the lists.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check its name") from error
    except ValueError as error:
        raise UserError(f"{path} is not a JSON file: {error}; get or make it again") from error
    for key in lists:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(
                f"{path} has no list {key!r}; expected a JSON file in {form}, with "
                f"{' and '.join(lists)}"
            )
    return content
