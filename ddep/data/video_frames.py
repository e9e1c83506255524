"""``video://``: single frames of video files, read in any order through ``PathManager``."""

from __future__ import annotations

import errno
import io
import math
import os
import re
import threading
from functools import lru_cache
from typing import IO, Any

import cv2
import numpy as np
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler

from ddep.data.tar_members import file_version
from ddep.data.video_capture import current_time, open_capture
from ddep.errors import UserError

_PREFIX = "video://"
_NAME = re.compile(r"video://(.+)\?microseconds=(\d+)#(\d+)", re.DOTALL)
# Number of videos that a process keeps open; each has its decoder's memory.
_OPEN_VIDEOS = 4
# A frame that is at most this many frames further on is reached by decoding those between. Seeking
# decodes about as many: those since the last key frame.
_NEAR = 32
# Containers round times; neighbouring frames are at least this far apart.
_TOLERANCE = 500
# One thread: worker processes decode at the same time, and threads do not survive a fork.
_PARAMETERS = (
    *(cv2.CAP_PROP_N_THREADS, 1),
    *(cv2.CAP_PROP_HW_ACCELERATION, cv2.VIDEO_ACCELERATION_NONE),
)


def name_frame(path: str, number: int, microseconds: int) -> str:
    """The name under which ``PathManager`` opens a frame of a video, as a PPM image.

    Args:
        path: the video.
        number: of the frame, from 0, for people.
        microseconds: when it is shown, since the first frame. It is found by this: where frames are
            not evenly spaced, OpenCV's numbers change with the place that reading started from.
    """
    return f"{_PREFIX}{path}?microseconds={microseconds}#{number:06d}"


def frame_path(name: str) -> str:
    """``path#number`` for a name that :func:`name_frame` makes; other names unchanged."""
    if not name.startswith(_PREFIX):
        return name
    path, _, number = _parse(name)
    return f"{path}#{number}"


class VideoFrameHandler(PathHandler):
    """Opens the names that :func:`name_frame` makes, for reading bytes.

    Any number of threads and worker processes may read at once.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return [_PREFIX]

    def _open(
        self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any
    ) -> IO[str] | IO[bytes]:
        self._check_kwargs(kwargs)
        if mode != "rb":
            raise OSError(errno.EROFS, "a frame of a video is opened as rb only", path)
        video, microseconds, _ = _parse(path)
        version = file_version(os.stat(video))
        try:
            pixels = _open_video(video, version, os.getpid()).read(microseconds)
        except UserError as error:
            raise OSError(errno.EIO, "the video cannot be opened", path) from error
        if pixels is None:
            raise OSError(errno.EIO, "this frame of the video is damaged or missing", path)
        height, width = pixels.shape[:2]
        return io.BytesIO(b"P6 %d %d 255\n%b" % (width, height, pixels.data))

    def _exists(self, path: str, **kwargs: Any) -> bool:
        self._check_kwargs(kwargs)
        return os.path.isfile(_parse(path)[0])

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return self._exists(path, **kwargs)


def _parse(name: str) -> tuple[str, int, str]:
    """The video's path, the frame's time and its number, as it is written."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise OSError(errno.ENOENT, "expected video://FILE?microseconds=TIME#NUMBER", name)
    return found[1], int(found[2]), found[3]


class VideoFrames:
    """An open video, whose frames are read by their times."""

    def __init__(self, path: str) -> None:
        """
        Raises:
            UserError: OpenCV cannot read the file.
        """
        self._path = path
        self._capture = open_capture(path, _PARAMETERS)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self._rate = rate if math.isfinite(rate) and rate > 0 else 1.0
        self._lock = threading.Lock()
        # Of the frame that is decoded, in microseconds; nothing before the first and after the
        # last.
        self._time: int | None = None

    def read(self, microseconds: int) -> np.ndarray | None:
        """Read a frame without decoding those before the last key frame.

        Args:
            microseconds: the frame's time.

        Returns:
            (H, W, 3) uint8, RGB, upright; None if no frame with this time can be decoded.
        """
        with self._lock:
            ahead = math.inf if self._time is None else microseconds - self._time
            if not -_TOLERANCE <= ahead <= _NEAR / self._rate * 1e6:
                self._seek(microseconds)
            while self._time is not None and self._time < microseconds - _TOLERANCE:
                self._grab()
            if self._time is None or self._time > microseconds + _TOLERANCE:
                return None
            is_frame, pixels = self._capture.retrieve()
            return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if is_frame else None

    def _seek(self, microseconds: int) -> None:
        """Decode a frame that is not after ``microseconds``, and preferably just before."""
        number = int(microseconds * self._rate / 1e6)
        before = 2
        while before < number:
            # OpenCV seeks to the time that an evenly spaced frame of this number has.
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, number - before)
            self._grab()
            if self._time is not None and self._time <= microseconds + _TOLERANCE:
                return
            before *= 2
        # Some formats cannot be sought to their first frames.
        self._capture.release()
        self._capture = open_capture(self._path, _PARAMETERS)
        self._grab()

    def _grab(self) -> None:
        self._time = current_time(self._capture) if self._capture.grab() else None


# A forked process opens videos again: it would share the positions in its parent's files.
@lru_cache(maxsize=_OPEN_VIDEOS)
def _open_video(path: str, version: tuple[int, ...], process: int) -> VideoFrames:
    return VideoFrames(path)


PathManager.register_handler(VideoFrameHandler())
