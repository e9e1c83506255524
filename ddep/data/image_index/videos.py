"""List the frames of a video file, some a second, without decoding it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ddep.data.image_index.containers import UNSETTLED, Container, Listing
from ddep.data.image_index.strings import Strings
from ddep.data.video_capture import has_ended_early, read_times
from ddep.data.video_frames import VideoFrames
from ddep.errors import UserError

# Frames a second that are listed: neighbouring frames are nearly equal.
FRAME_RATE = 1.0


def list_video(
    root: str, video: Container, found: Callable[[int], None], frame_rate: float
) -> Listing:
    """List the frames of ``video`` that are next to each whole multiple of 1 / ``frame_rate``.

    A frame's name is its number in the video, from 0, in at least six digits. A damaged video has a
    ``problem``; the frames before the damage are listed.

    Args:
        root: paths are relative to it.
        video: the video file.
        found: called with the number of frames listed.
        frame_rate: frames a second; all frames are listed where it is at least the video's.

    Raises:
        OSError: it cannot be opened.
    """
    path = video.path(root)
    with open(path, "rb"):  # OpenCV does not say why it cannot
        pass
    try:
        numbers, times, problem = _choose_frames(path, frame_rate)
    except UserError as error:
        numbers, times, problem = np.empty(0, np.int64), np.empty(0, np.int64), str(error)
    found(len(numbers))
    digits = max(6, len(str(max(numbers, default=0))))  # equally many, so that names are sorted
    names = Strings.pack(f"{number:0{digits}d}" for number in numbers)
    return Listing(UNSETTLED, names, [], np.stack([numbers, times], axis=1), problem)


def _choose_frames(path: str, frame_rate: float) -> tuple[np.ndarray, np.ndarray, str]:
    """The frames' numbers and times, (N,) int64 each, and what is wrong with the video.

    Raises:
        UserError: no frame can be listed.
    """
    claimed, packets = read_times(path, decode=False)
    if claimed <= 0:
        raise UserError(
            f"video {path} does not say how long it is, so its frames cannot be found without "
            f"decoding all of it; write it again: ffmpeg -i {path} -c copy NEW.mp4"
        )
    problem = ""
    if has_ended_early(len(packets), claimed):
        problem = (
            f"video {path} ends after {len(packets)} of {claimed} frames: it is damaged or "
            "truncated; copy it again"
        )
    times = np.unique(packets)  # sorted: packets are in the order of decoding
    numbers = sample(times, frame_rate)
    # Packets and frames may differ: at a damaged end, where editors have hidden frames, or where
    # not all packets say when they are shown.
    if len(times) < len(packets) or not _are_readable(path, times[numbers]):
        times = read_times(path, decode=True)[1]
        # Frames without a time of their own cannot be found.
        found = np.flatnonzero(times > np.maximum.accumulate(np.append(-1, times[:-1])))
        numbers = found[sample(times[found], frame_rate)]
        if not _are_readable(path, times[numbers]):
            raise UserError(
                f"video {path} has no frame that can be read, or cannot be read out of order; "
                "convert it to MP4 (H.264)"
            )
    return numbers, times[numbers], problem


def _are_readable(path: str, times: np.ndarray) -> bool:
    """Whether the first and the last frame can be read, and there is one."""
    if not len(times):
        return False
    video = VideoFrames(path)
    return all(video.read(int(time)) is not None for time in (times[0], times[-1]))


def sample(times: np.ndarray, frame_rate: float) -> np.ndarray:
    """Choose the frames that are nearest to the first one's time plus multiples of a period.

    Args:
        times: (T,) int64, of all frames, ascending, in microseconds.
        frame_rate: frames a second; the period is its inverse.

    Returns:
        (N,) int64, the chosen frames' indices, ascending, none twice.
    """
    if not len(times):
        return np.empty(0, dtype=np.int64)
    period = 1e6 / frame_rate
    # The last frame is still the nearest one half a frame later.
    last = times[-1] + (times[-1] - times[-2:].min()) / 2
    wanted = times[0] + period * np.arange(int((last - times[0]) / period) + 1)
    return np.unique(np.searchsorted((times[1:] + times[:-1]) / 2, wanted))
