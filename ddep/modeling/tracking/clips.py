"""Videos are cut into clips that overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

Frame = TypeVar("Frame")


def cut_into_clips(
    frames: Iterable[Frame], length: int, stride: int
) -> Iterator[tuple[int, list[Frame]]]:
    """Cut a video of any number of frames, of which ``length`` are held at a time.

    Args:
        frames: of the video, in order.
        length: frames of a clip. A shorter video is one clip.
        stride: from the start of a clip to that of the next, 1 to ``length``. The last clip starts
            earlier if the video ends in it, so that it has ``length`` frames as well.

    Yields:
        The number of a clip's first frame, and its frames.
    """
    held: deque[Frame] = deque(maxlen=length)
    read = covered = 0
    for frame in frames:
        held.append(frame)
        read += 1
        if read >= length and (read - length) % stride == 0:
            yield read - length, list(held)
            covered = read
    if covered < read:
        yield read - len(held), list(held)
