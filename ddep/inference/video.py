"""Videos and folders of frames in, videos out, a frame at a time."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import cv2
import numpy as np

from ddep.data.datasets.image_folder import find_images
from ddep.data.image_reader import UnreadableImageError, read_image
from ddep.data.video_capture import has_ended_early, open_capture
from ddep.errors import UserError
from ddep.files import lock, temporary_file
from ddep.output_files import check_writable

# What is written: OpenCV's wheels have both encoders.
_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
# Where a file does not say; also that of OpenCV's readers.
DEFAULT_RATE = 25.0


class Frames(Protocol):
    """Frames in their order: (H, W, 3) uint8, RGB.

    Iteration starts again with the first frame each time. Where not all frames can be read, it
    raises :class:`UserError` after the last one that can.
    """

    path: Path
    rate: float  # frames a second

    def __iter__(self) -> Iterator[np.ndarray]: ...

    def __len__(self) -> int: ...

    def describe(self, length: int) -> dict[str, Any]:
        """What files of results say of the video, of which ``length`` frames were read."""


class Video:
    """The frames of a video file; see :class:`Frames`. Its length is what the file claims.

    With a :class:`ddep.inference.Predictor`, ``map(predictor, Video("street.mp4"))`` gives one
    prediction after the other and keeps none.

    Raises:
        UserError: OpenCV cannot read the file, or there is no frame.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"video {path} does not exist; expected a video file")
        capture = open_capture(str(path))
        try:
            if not capture.grab():
                raise UserError(f"video {path} has no frame that can be read; record it again")
            rate = capture.get(cv2.CAP_PROP_FPS)
            self.rate = rate if math.isfinite(rate) and rate > 0 else DEFAULT_RATE
            self._length = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        finally:
            capture.release()

    def __len__(self) -> int:
        return self._length

    def describe(self, length: int) -> dict[str, Any]:
        """See :class:`Frames`."""
        return {"file_name": str(self.path), "frame_rate": self.rate}

    def __iter__(self) -> Iterator[np.ndarray]:
        capture = open_capture(str(self.path))
        number = 0
        try:
            while True:
                is_frame, frame = capture.read()
                if not is_frame:
                    break
                number += 1
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()
        if has_ended_early(number, self._length):
            raise UserError(
                f"video {self.path} ends after {number} of {self._length} frames: it is damaged "
                "or truncated"
            )


class FrameFolder:
    """The images of a folder as frames, ``2.png`` before ``10.png``; see :class:`Frames`.

    Images that cannot be read are left out, and named at the end.

    Args:
        path: the folder; images are searched at any depth.
        rate: frames a second.

    Raises:
        UserError: there is no image.
    """

    def __init__(self, path: str | Path, rate: float = DEFAULT_RATE) -> None:
        self.path, self.rate = Path(path), rate
        self._images = sorted(find_images(self.path), key=_in_numeric_order)
        self._unreadable: dict[str, str] = {}  # with what is wrong, of the last iteration

    def __len__(self) -> int:
        return len(self._images)

    def describe(self, length: int) -> dict[str, Any]:
        """See :class:`Frames`; ``file_names`` are those of the frames that were read."""
        readable = [image for image in self._images if image not in self._unreadable]
        names = [os.path.relpath(image, self.path) for image in readable[:length]]
        return {"file_names": names, "image_root": str(self.path), "frame_rate": self.rate}

    def __iter__(self) -> Iterator[np.ndarray]:
        self._unreadable = {}
        for image in self._images:
            try:
                frame = read_image(image, "RGB")
            except UnreadableImageError as error:
                self._unreadable[image] = str(error)
                continue
            yield frame
        if self._unreadable:
            raise UserError(
                f"{len(self._unreadable)} of {len(self)} frames could not be read: "
                f"{'; '.join(self._unreadable.values())}"
            )


def _in_numeric_order(name: str) -> list[tuple[int, str]]:
    """``a10b`` as a, 10, b, where numbers compare as numbers and come before letters."""
    return [
        (int(part), "") if part.isdecimal() else (-1 if not part else 1 << 62, part)
        for part in re.split(r"(\d+)", name)
    ]


Result = TypeVar("Result")


def draw_video(
    frames: Frames,
    draw: Callable[[np.ndarray], np.ndarray],
    output: Path,
    progress: Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]] = iter,
) -> int:
    """Write a video of what ``draw`` makes of each frame; one frame is in memory at a time.

    Args:
        frames: a :class:`Video` or :class:`FrameFolder`; the output has its rate.
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
