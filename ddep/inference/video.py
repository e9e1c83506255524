"""Videos and folders of frames as frames, one at a time."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from ddep.data.datasets.image_folder import find_images
from ddep.data.image_reader import UnreadableImageError, read_image
from ddep.data.video_capture import has_ended_early, open_capture
from ddep.errors import UserError

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
