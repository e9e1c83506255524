"""Open video files with OpenCV."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np

from ddep.errors import UserError

# FFmpeg's own messages about damaged files; OpenCV reads this when it opens the first video.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# OpenCV's own warnings about them: an error says the same.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

# What videos are recognised by.
SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")


def is_video(path: str | Path) -> bool:
    """Whether a file's name ends as those of videos do."""
    return str(path).lower().endswith(SUFFIXES)


def open_capture(path: str, parameters: tuple[int, ...] = ()) -> cv2.VideoCapture:
    """Open a video file at its first frame. Frames come upright, as the file says.

    Args:
        path: the file.
        parameters: OpenCV's properties that are set on opening, each followed by its value.

    Raises:
        UserError: OpenCV cannot read the file.
    """
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, parameters)
    if not capture.isOpened():
        capture.release()
        raise UserError(
            f"video {path} cannot be read: it is no video, damaged or in an unknown format; "
            "convert it to MP4 (H.264)"
        )
    return capture


def current_time(capture: cv2.VideoCapture) -> int:
    """The time of the frame, or packet, that was grabbed last, in microseconds."""
    return round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1000)


def read_times(path: str, *, decode: bool) -> tuple[int, np.ndarray]:
    """The number of frames that a video claims, and the times of those that are there.

    Args:
        path: the file.
        decode: whether to decode the frames. If not, the times are those of the encoded packets,
            one a frame, in the file's order, which takes little time.

    Returns:
        ``CAP_PROP_FRAME_COUNT``, and (N,) int64 in microseconds.

    Raises:
        UserError: OpenCV cannot read the file.
    """
    capture = open_capture(path, () if decode else (cv2.CAP_PROP_FORMAT, -1))
    try:
        times = []
        while capture.grab():
            times.append(current_time(capture))
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), np.array(times, dtype=np.int64)
    finally:
        capture.release()


def has_ended_early(read: int, claimed: int) -> bool:
    """Whether a file has fewer frames than it claims.

    Formats without a count have one estimated from their duration: a hundredth may be missing.

    Args:
        read: number of frames in the file.
        claimed: ``CAP_PROP_FRAME_COUNT``.
    """
    return read < claimed - max(1, claimed // 100)
