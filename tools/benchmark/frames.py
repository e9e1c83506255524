"""Time how frames of videos are read: by seeking, from the start, and as JPEG files.

    python tools/benchmark/frames.py
    python tools/benchmark/frames.py --videos my/videos

Prints a table in Markdown of times on the processor. Without --videos, OpenCV makes a video of
MPEG-4 in which a camera moves over a photograph.
"""

from __future__ import annotations

import ddep  # noqa: F401  # isort: skip  # before torch: it sets how OpenMP waits

import argparse
import datetime
import os
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
from PIL import Image

from benchmark_page import cpu_name, number, table_line
from data_jobs import mapper_config
from data_measurement import one_thread
from ddep.data.datasets.image_folder import load_image_folder
from ddep.data.image_reader import read_image
from ddep.data.mappers import build_mapper
from ddep.data.record import Record
from ddep.data.video_capture import is_video
from ddep.endings import errors_as_lines
from ddep.errors import UserError
from ddep.inference.video import Video
from ddep.inference.video_writing import new_video
from photographs import make_photographs

_SECONDS, _RATE, _SIZE = 120, 25, (1280, 720)
_HEADINGS = (
    *("video", "frames", "index", "seek and read", "read from the start", "read in order"),
    *("denoising, frames", "denoising, JPEG"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="with videos to read")
    parser.add_argument("--reads", type=int, default=60, help="of single frames (%(default)s)")
    args = parser.parse_args()
    with errors_as_lines(), one_thread(), tempfile.TemporaryDirectory() as folder:
        os.environ["DDEP_CACHE"] = folder
        videos = sorted(p for p in args.videos.iterdir() if is_video(p)) if args.videos else []
        if args.videos and not videos:
            raise UserError(f"--videos {args.videos} has no video in it")
        print(f"- date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC")
        print(f"- machine: {cpu_name()}, one thread; OpenCV {cv2.__version__}")
        print(f"- command: `python {shlex.join(sys.argv)}`\n")
        print(table_line(_HEADINGS))
        print(table_line(":---" for _ in _HEADINGS))
        for video in videos or [_make_video(Path(folder))]:
            print(table_line(_measure(video, args.reads, Path(folder))), flush=True)


def _make_video(folder: Path) -> Path:
    """A camera moves over a photograph, there and back."""
    [record] = make_photographs(folder, 2 * _SIZE[0], 2 * _SIZE[1], 1)
    photograph = read_image(record["file_name"])
    path = folder / "generated.mp4"
    with new_video(path, _RATE) as write:
        for frame in range(_SECONDS * _RATE):
            left, top = (
                abs((step * frame) % (2 * side) - side)
                for step, side in zip((6, 2), _SIZE, strict=True)
            )
            write(photograph[top : top + _SIZE[1], left : left + _SIZE[0]])
    return path


def _measure(path: Path, reads: int, folder: Path) -> list[str]:
    """One line of the table."""
    began = time.process_time()
    records = load_image_folder(f"images:{path}")
    indexing = time.process_time() - began
    chosen = random.Random(0).choices(records, k=reads)
    seeking = _median(lambda record: read_image(record["file_name"]), chosen)
    few = random.Random(1).choices(range(len(Video(path))), k=3)
    from_start = _median(lambda frame: _read_from_start(path, frame), few)
    in_order = _median(lambda record: read_image(record["file_name"]), records[:reads])
    files = []
    for position, record in enumerate(chosen):
        files.append({"file_name": str(folder / f"{position}.jpg"), "image_id": str(position)})
        Image.fromarray(read_image(record["file_name"])).save(files[-1]["file_name"], quality=90)
    mapper = build_mapper(mapper_config("ddep_denoising"), is_train=True)
    frames_rate, files_rate = (1 / _median(mapper, images) for images in (chosen, files))
    height, width = read_image(records[0]["file_name"]).shape[:2]
    return [
        f"{path.name}, {width}x{height}",
        str(len(Video(path))),
        f"{number(indexing)} s",
        *(f"{number(1000 * seconds)} ms" for seconds in (seeking, from_start, in_order)),
        *(f"{number(rate)} images/s" for rate in (frames_rate, files_rate)),
    ]


def _read_from_start(path: Path, number: int) -> None:
    for position, _ in enumerate(Video(path)):
        if position == number:
            return


def _median(function: Callable, inputs: Sequence[Record] | Sequence[int]) -> float:
    """The median of a call's seconds on the processor, which other programs do not change."""
    times = []
    for value in inputs:
        began = time.process_time()
        function(value)
        times.append(time.process_time() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
