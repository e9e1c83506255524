"""Videos are written a frame at a time, and appear when they are complete."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, TypeVar

import cv2
import numpy as np

from ddep.errors import UserError
from ddep.files import lock, temporary_file
from ddep.inference.video import Frames
from ddep.output_files import check_writable

# OpenCV's wheels have both encoders.
_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}

Result = TypeVar("Result")


def draw_video(
    frames: Frames,
    draw: Callable[[np.ndarray], np.ndarray],
    output: Path,
    progress: Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]] = iter,
) -> int:
    """Write a video of what ``draw`` makes of each frame; one frame is in memory at a time.

    Args:
        frames: a :class:`ddep.inference.video.Video` or any others; the output has its rate.
        draw: from (H, W, 3) uint8, RGB, to (H', W', 3) uint8, RGB, of one size for all frames.
        output: the video to write, ``.mp4`` or ``.avi``; its folder is made.
        progress: wraps the frames, such as tqdm.

    Returns:
        The number of frames written.

    Raises:
        UserError: not all frames could be read, after a video of the others is there; or no video
            can be written.
    """
    return write_all(progress(frames), {output: drawn_video(output, frames.rate, draw)})


def write_all(
    results: Iterable[Result],
    files: Mapping[Path, AbstractContextManager[Callable[[Result], None]]],
) -> int:
    """Write each result into each file; one is in memory at a time.

    Args:
        results: of the frames of a video, in order.
        files: by path, what opens the file, gives a function that adds a result, and completes it.

    Returns:
        The number of results.

    Raises:
        UserError: the results end with one, after the files of those before are complete; or a file
            cannot be written.
    """
    written, incomplete = 0, None
    with ExitStack() as stack:
        writers = [stack.enter_context(file) for file in files.values()]
        try:
            for result in results:
                for write in writers:
                    write(result)
                written += 1
        except UserError as error:
            if not written:
                raise
            incomplete = error
    if incomplete is not None:
        names = " and ".join(map(str, files))
        has = "has" if len(files) == 1 else "have"
        raise UserError(f"{incomplete}; {names} {has} {written} frames") from incomplete
    return written


@contextmanager
def drawn_video(
    path: Path, rate: float, draw: Callable[[Result], np.ndarray]
) -> Iterator[Callable[[Result], None]]:
    """As :func:`new_video`, of the pictures that ``draw`` makes of what is added."""
    with new_video(path, rate) as write:
        yield lambda result: write(draw(result))


@contextmanager
def new_video(path: Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Write a video that appears under its name when it is complete.

    Args:
        path: of the video, ``.mp4`` (MPEG-4) or ``.avi`` (Motion JPEG); its folder is made.
        rate: frames a second.

    Yields:
        A function that adds a frame, (H, W, 3) uint8, RGB; all have the size of the first. It
        raises UserError for another size.

    Raises:
        UserError: the ending is another, or the video cannot be written.
    """
    if path.suffix.lower() not in _CODECS:
        raise UserError(
            f"video {path}: expected a name that ends in {' or '.join(sorted(_CODECS))}"
        )
    temporary = temporary_file(path, path.suffix)
    writer = _VideoWriter(temporary, path, rate)
    check_writable("video", str(path))
    try:
        yield writer.write
        writer.finish()
        os.replace(temporary, path)
    finally:
        writer.release()
        temporary.unlink(missing_ok=True)


class _VideoWriter:
    """OpenCV's writer, which fails silently, with checks."""

    def __init__(self, temporary: Path, path: Path, rate: float) -> None:
        self._temporary, self._path, self._rate = temporary, path, rate
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0
        self._locked: IO[bytes] | None = None  # the file, as long as it is being written

    def write(self, frame: np.ndarray) -> None:
        size = (frame.shape[1], frame.shape[0])
        if self._writer is None:
            self._size = size
            codec = cv2.VideoWriter_fourcc(*_CODECS[self._path.suffix.lower()])
            self._writer = cv2.VideoWriter(str(self._temporary), codec, self._rate, size)
            if not self._writer.isOpened():
                raise UserError(
                    f"video {self._path} cannot be written with {size[0]}x{size[1]} pixels and "
                    f"{self._rate:g} frames a second; choose another folder, size or rate"
                )
            self._locked = self._temporary.open("rb")
            lock(self._locked)
        if size != self._size:
            raise UserError(
                f"frame {self._written + 1} is {size[0]}x{size[1]}, but those before it are "
                f"{self._size[0]}x{self._size[1]}; a video has frames of one size"
            )
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self._written += 1

    def finish(self) -> None:
        """Close the file and check that all frames are in it."""
        if not self._written:
            raise UserError(f"video {self._path} cannot be written: there is no frame")
        self.release()
        found = cv2.VideoCapture(str(self._temporary), cv2.CAP_FFMPEG)
        number = int(found.get(cv2.CAP_PROP_FRAME_COUNT)) if found.isOpened() else 0
        found.release()
        if number < self._written:
            raise UserError(
                f"video {self._path} cannot be written: {number} of {self._written} frames are on "
                "the disk; free space or choose another folder"
            )

    def release(self) -> None:
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        if self._locked is not None:
            self._locked.close()
