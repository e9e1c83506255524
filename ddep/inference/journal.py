"""A record of the images that are done, from which a stopped run continues."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import IO, Any

from detectron2.config import CfgNode

from ddep.errors import UserError
from ddep.output_files import check_writable

NAME = ".predicted.jsonl"


def model_identity(cfg: CfgNode) -> dict[str, Any]:
    """What tells a model from another one, for the settings of a :class:`Journal`.

    ``config`` is a hash; ``weights`` when the file was written, in ns, which tells it from a later
    one of the same name.
    """
    weights = cfg.MODEL.WEIGHTS
    return {
        "config": hashlib.sha256(cfg.dump().encode()).hexdigest(),
        "weights": os.stat(weights).st_mtime_ns if os.path.exists(weights) else None,
    }


class Journal:
    """A file with a line of JSON for each image that is done, after a line about the whole run.

    It is in the output folder until all images are done. A line that a kill has cut off does not
    count, nor does what follows it.
    """

    def __init__(self, output: Path, settings: dict[str, Any], resume: bool) -> None:
        """
        Args:
            output: the folder.
            settings: what makes the results what they are.
            resume: take over what an earlier run has done, if there was one.

        Raises:
            UserError: the folder cannot be written, or the earlier run had other settings.
        """
        self.path = output / NAME
        check_writable("--output", str(self.path))
        self.done: dict[str, dict[str, Any]] = {}
        entries, size = _read(self.path) if resume else ([], 0)
        if entries and entries[0] != settings:
            raise UserError(
                f"--resume: {output} has results of other settings "
                f"({', '.join(_different(entries[0], settings))}); repeat them, choose another "
                "folder or leave --resume out to start anew"
            )
        self.done = {entry["name"]: entry for entry in entries[1:]}
        self._file: IO[bytes] = _open(self.path, size)
        if not entries:
            self._write(settings)

    def add(self, entry: dict[str, Any]) -> None:
        """Record an image, ``entry["name"]``, when all its files are written.

        Raises:
            UserError: the disk is full.
        """
        self._write(entry)
        self.done[entry["name"]] = entry

    def close(self, *, remove: bool) -> None:
        """Stop writing; remove the file if everything is done."""
        with contextlib.suppress(OSError):  # of a full disk, which _write has reported
            self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)

    def _write(self, content: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(content).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; free some space, then "
                "continue with --resume"
            ) from error


def _different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(key for key in {**one, **other} if one.get(key) != other.get(key))


def _open(path: Path, size: int) -> IO[bytes]:
    """Go on after the first ``size`` bytes of ``path``, which a full disk cannot take away."""
    try:
        path.touch()
        os.truncate(path, size)
        return open(path, "ab")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The entries up to the first damaged line, and the bytes they take; none without a file."""
    entries, size = [], 0
    try:
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                entries.append(json.loads(line))
                size += len(line)
    except (FileNotFoundError, ValueError):  # the latter is of a line that is no JSON
        pass
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check its owner") from error
    return entries, size
