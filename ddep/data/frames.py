"""The frames of videos: which of them make a clip, and reading them when they are needed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
import torch


def draw_frames(length: int, number: int, reach: int, *, shuffle: bool) -> list[int]:
    """Draw the frames of a training clip, as Mask2Former-video does.

    One frame is drawn uniformly, the others from those near it, with replacement. A video of one
    frame repeats it.

    Args:
        length: frames of the video.
        number: of frames to draw.
        reach: how far the others may be from the first one, frames.
        shuffle: whether to leave them in a random order instead of that of the video.

    Returns:
        ``number`` indices.
    """
    reference = random.randrange(length)
    start, stop = max(0, reference - reach), min(length, reference + reach + 1)
    others = [frame for frame in range(start, stop) if frame != reference] or [reference]
    frames = sorted([reference, *np.random.choice(others, number - 1).tolist()])
    if shuffle:
        random.shuffle(frames)
    return frames


class FramesOnDemand(Sequence[torch.Tensor]):
    """The frames of a video, each read whenever it is asked for: none of them stays in memory."""

    def __init__(self, paths: Sequence[str], read: Callable[[str], torch.Tensor]) -> None:
        """
        Args:
            paths: of the frames.
            read: from a path to a (3, H, W) uint8 image; picklable if the sequence should be.
        """
        self._paths = list(paths)
        self._read = read

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[torch.Tensor]: ...
    def __getitem__(self, index: int | slice) -> torch.Tensor | list[torch.Tensor]:
        if isinstance(index, slice):
            return [self._read(path) for path in self._paths[index]]
        return self._read(self._paths[index])
