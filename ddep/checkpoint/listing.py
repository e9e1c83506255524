"""List the checkpoints that a string with commas and wildcards names."""

from __future__ import annotations

import glob
import os

from ddep.errors import UserError


def list_checkpoints(weights: str) -> list[str]:
    """The checkpoints that ``weights`` names, each once.

    Args:
        weights: one path as :func:`ddep.checkpoint.local_path` takes it, or several separated by
            commas; file names may have the wildcards ``*``, ``?`` and ``[...]``, whose matches are
            sorted.

    Raises:
        UserError: no file matches a wildcard, or there is nothing between two commas.
    """
    if os.path.exists(weights):
        return [weights]
    found: dict[str, None] = {}
    for word in map(str.strip, weights.split(",")):
        if not word:
            raise UserError(
                f"MODEL.WEIGHTS is {weights!r}; expected a checkpoint before and after each comma"
            )
        is_pattern = glob.has_magic(word) and not os.path.exists(word) and "://" not in word
        paths = sorted(filter(os.path.isfile, glob.glob(word))) if is_pattern else [word]
        if not paths:
            raise UserError(f"MODEL.WEIGHTS has {word!r}, which matches no file; check the path")
        found |= dict.fromkeys(paths)
    return list(found)
