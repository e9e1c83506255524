"""A record of the images that are done, from which a run that was stopped goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

from ddep.errors import UserError
from ddep.output_files import check_writable

NAME = ".predicted.jsonl"


class Journal:
    """A file with a line of JSON for each image that is done, after a line about the whole run.

    It is in the output folder until all images are done. A line that a kill has cut off does not
    count.
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
        lines = _whole_lines(self.path) if resume else []
        if lines and json.loads(lines[0]) != settings:
            raise UserError(
                f"--resume: {output} has results of another model, --save, --ids or --batch; "
                "repeat them, choose another folder or leave --resume out to start anew"
            )
        self.done = {entry["name"]: entry for entry in map(json.loads, lines[1:])}
        self._file: IO[str] = _open(self.path)
        for content in (settings, *self.done.values()):
            self._write(content)

    def add(self, entry: dict[str, Any]) -> None:
        """Record an image, ``entry["name"]``, when all its files are written.

        Raises:
            UserError: the disk is full.
        """
        self._write(entry)
        self.done[entry["name"]] = entry

    def close(self, *, remove: bool) -> None:
        """Stop writing; remove the file if everything is done."""
        self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)

    def _write(self, content: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(content) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; free some space, then --resume "
                "goes on"
            ) from error


def _open(path: Path) -> IO[str]:
    """A new file in place of ``path``: what was read from that is written again."""
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _whole_lines(path: Path) -> list[str]:
    """The lines that end; none if there is no such file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check its owner") from error
    return text[: text.rfind("\n") + 1].splitlines()
