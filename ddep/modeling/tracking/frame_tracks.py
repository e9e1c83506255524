"""The objects of one frame of a video, each with the number of its track."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class FrameTracks(NamedTuple):
    """What a model of videos says about one frame.

    A track is not listed in frames in which its object cannot be seen.

    Attributes:
        frame: its number in the video, from 0.
        track_ids: N numbers, the same for an object in all frames, from 1.
        class_probabilities: (N, K) float32 on the CPU, of the tracks, as far as they are known by
            now: they are averaged over the frames that a model has seen.
        masks: (N, H, W) bool on the CPU, of the size of the original frame. A
            :class:`ddep.modeling.tracking.ClipLinker` gives what its clips have, logits
            (N, h, w) at the network's resolution.
    """

    frame: int
    track_ids: list[int]
    class_probabilities: Tensor
    masks: Tensor
