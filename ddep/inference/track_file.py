"""Tracks through a video as a JSON file in YouTube-VIS's format."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

from detectron2.data import Metadata

from ddep.data.datasets.instances import describe_mask
from ddep.data.datasets.preparation import new_file
from ddep.drawing.classes import class_name
from ddep.errors import UserError
from ddep.files import lock, temporary_file
from ddep.inference.tracking import TrackedFrame

# What is known of tracks and of their masks, while the video is predicted. They come by frame and
# leave by track; their number is only limited by the disk.
_TABLES = """
    CREATE TABLE tracks (id INTEGER PRIMARY KEY, category INTEGER, score REAL);
    CREATE TABLE masks (track INTEGER, frame INTEGER, segmentation TEXT, bbox TEXT, area INTEGER,
                        PRIMARY KEY (track, frame)) WITHOUT ROWID;
"""


@contextmanager
def new_track_file(
    path: Path, metadata: Metadata, describe: Callable[[int], Mapping[str, Any]]
) -> Iterator[Callable[[TrackedFrame], None]]:
    """Write the tracks of a video; the file appears under its name when it is complete.

    It has ``videos``, one, with ``id`` 1; ``categories``, with the data set's ids; and
    ``annotations``, one for each track: ``id``, ``video_id``, ``category_id``, ``score``, and
    ``segmentations`` (run lengths), ``bboxes`` and ``areas`` with an entry for each frame, null
    where the object is not seen. Class and score are those that are known in the end.

    Memory does not grow with the video: until it ends, masks are in a temporary file beside
    ``path``.

    Args:
        path: of the file; its folder is made.
        metadata: of the model's classes.
        describe: from the number of frames, in the end, what else the file says of the video.

    Yields:
        A function that adds the next frame.

    Raises:
        UserError: the file cannot be written, or the model predicts a class that the data set does
            not have.
    """
    categories = _categories(metadata)
    with new_file(path) as file, _spool(path) as spool:
        size = {"height": 0, "width": 0, "length": 0}

        def add(frame: TrackedFrame) -> None:
            height, width = frame.image.shape[:2]
            size.update(height=height, width=width, length=frame.number + 1)
            with _disk_errors(path):
                _store(spool, frame, categories)

        yield add
        with _disk_errors(path):
            video = {"id": 1, **describe(size["length"]), **size}
            _write(file, spool, video, list(categories.values()))


@contextmanager
def _spool(path: Path) -> Iterator[sqlite3.Connection]:
    """A database in a temporary file beside ``path``, without the guarantees of one that lasts."""
    temporary = temporary_file(path.with_name(f"{path.name}.masks"))
    try:
        temporary.touch()
        with (
            temporary.open("rb") as file,
            _disk_errors(path),
            closing(sqlite3.connect(temporary)) as spool,
        ):
            lock(file)
            spool.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _TABLES)
            yield spool
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise UserError(
            f"{path} cannot be written: {error}; free space or choose another folder"
        ) from error


def _categories(metadata: Metadata) -> dict[int, dict[str, Any]]:
    """COCO's description of each class, by its number from 0."""
    names = metadata.get("thing_classes", ())
    ids = metadata.get("thing_dataset_id_to_contiguous_id", {})
    return {
        number: {"id": dataset_id, "name": class_name(names, number)}
        for dataset_id, number in ids.items()
    }


def _store(
    spool: sqlite3.Connection, frame: TrackedFrame, categories: Mapping[int, Mapping[str, Any]]
) -> None:
    found = zip(frame.track_ids, frame.labels, frame.scores, frame.masks, strict=True)
    for number, label, score, mask in found:
        if label not in categories:
            raise UserError(
                f"the model predicts class {label}, which the data set of its config does not have "
                f"as a thing (it has {len(categories)}); the model's number of classes must be the "
                "data set's"
            )
        row = number, categories[label]["id"], score
        spool.execute("INSERT OR REPLACE INTO tracks VALUES (?, ?, ?)", row)
        shape = describe_mask(mask)
        texts = json.dumps(shape["segmentation"]), json.dumps(shape["bbox"])
        values = number, frame.number, *texts, shape["area"]
        spool.execute("INSERT INTO masks VALUES (?, ?, ?, ?, ?)", values)


def _write(
    file: IO[bytes],
    spool: sqlite3.Connection,
    video: Mapping[str, Any],
    categories: list[Mapping[str, Any]],
) -> None:
    """Write the JSON text piece by piece."""

    def write(text: str) -> None:
        file.write(text.encode())

    write(f'{{"videos": [{json.dumps(video)}],\n"categories": {json.dumps(categories)},\n')
    write('"annotations": [')
    tracks = spool.execute("SELECT id, category, score FROM tracks ORDER BY id")
    for place, (number, category, score) in enumerate(tracks):
        known = {"id": number, "video_id": video["id"], "category_id": category, "score": score}
        size = {key: video[key] for key in ("height", "width", "length")}
        write((",\n" if place else "\n") + json.dumps({**known, "iscrowd": 0, **size})[:-1])
        for key, column in (
            ("segmentations", "segmentation"),
            ("bboxes", "bbox"),
            ("areas", "area"),
        ):
            write(f', "{key}": [')
            for text in _entries(spool, number, column, video["length"]):
                write(text)
            write("]")
        write("}")
    write("\n]}\n")


def _entries(spool: sqlite3.Connection, number: int, column: str, length: int) -> Iterator[str]:
    """A JSON value for each frame, with commas between them."""
    query = f"SELECT frame, {column} FROM masks WHERE track = ? ORDER BY frame"
    following = 0
    end: tuple[int, Any] = (length, None)
    for frame, value in chain(spool.execute(query, (number,)), [end]):
        for absent in range(following, frame):
            yield ", null" if absent else "null"
        if frame < length:
            yield f", {value}" if frame else f"{value}"
        following = frame + 1
