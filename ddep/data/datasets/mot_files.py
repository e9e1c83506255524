"""Read the files of MOTChallenge's sequences: seqinfo.ini and gt/gt.txt."""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ddep.errors import UserError, one_line


class MotSequence(NamedTuple):
    """What seqinfo.ini says.

    Attributes:
        folder: of the sequence; its name is the sequence's.
        frames: the paths of the images, in order.
        height, width: of the frames, pixels.
    """

    folder: Path
    frames: list[str]
    height: int
    width: int


class Row(NamedTuple):
    """A line of gt.txt.

    Attributes:
        where: file and line, for errors.
        frame: from 0.
        track: an id.
        values: the other columns.
    """

    where: str
    frame: int
    track: int
    values: list[str]


def read_sequence(folder: Path) -> MotSequence:
    """Read seqinfo.ini and look for the frames that it names.

    Raises:
        UserError: seqinfo.ini or a frame is missing, or a value is no number.
    """
    path = folder / "seqinfo.ini"
    parser = configparser.ConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        info = dict(parser["Sequence"])
        length, height, width = (int(info[key]) for key in ("seqlength", "imheight", "imwidth"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; unpack {folder.name}") from error
    except (configparser.Error, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is broken ({one_line(error)}); expected a section [Sequence] with the numbers "
            "seqLength, imHeight and imWidth; unpack it again"
        ) from error
    images = folder / info.get("imdir", "img1")
    present = set(os.listdir(images)) if images.is_dir() else set()
    names = [f"{frame:06d}{info.get('imext', '.jpg')}" for frame in range(1, length + 1)]
    for name in names:
        if name not in present:
            raise UserError(
                f"{images / name} does not exist, but {path} says that there are {length} frames; "
                f"unpack {folder.name} again"
            )
    return MotSequence(folder, [str(images / name) for name in names], height, width)


def read_rows(sequence: MotSequence, separator: str, columns: int) -> Iterator[Row]:
    """Read the lines of gt/gt.txt, whose first two columns are frame (from 1) and track.

    Args:
        sequence: whose labels are read.
        separator: of columns.
        columns: how many there must be at least.

    Raises:
        UserError: the file cannot be read, a line has too few columns, a frame or track that is no
            number, or a frame that the sequence does not have.
    """
    path = sequence.folder / "gt" / "gt.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text file"
        raise UserError(f"{path} cannot be read: {why}; unpack it again") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where, values = f"{path}, line {number}", line.strip().split(separator)
        if len(values) < columns:
            raise UserError(
                f"{where} has {len(values)} columns ({line!r:.60}); expected at least {columns}"
            )
        frame, track = parse(where, values[:2], int)
        if not 1 <= frame <= len(sequence.frames):
            raise UserError(
                f"{where} is of frame {frame}; expected 1 to {len(sequence.frames)}, as "
                "seqinfo.ini says"
            )
        yield Row(where, frame - 1, track, values[2:])


def parse(where: str, values: Sequence[str], kind: type[int] | type[float]) -> list[Any]:
    """Numbers from text.

    Raises:
        UserError: one is no number.
    """
    try:
        return [kind(value) for value in values]
    except ValueError as error:
        expected = "whole numbers" if kind is int else "numbers"
        raise UserError(f"{where} has {' '.join(values)!r:.60}; expected {expected}") from error


def check_once(row: Row, present: list[dict[str, Any]]) -> None:
    """Raise :class:`UserError` if the track of ``row`` is in its frame already."""
    if any(annotation["id"] == row.track for annotation in present):
        raise UserError(
            f"{row.where} has track {row.track} a second time in frame {row.frame + 1}; expected "
            "each track once in a frame"
        )
