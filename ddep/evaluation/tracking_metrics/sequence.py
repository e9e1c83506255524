"""What tracking metrics are computed from: which objects are where, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

EPSILON = np.finfo(np.float64).eps
# Sums over the frames of a sequence, by name; those of several sequences add up.
Sums = dict[str, np.ndarray]


class Frame(NamedTuple):
    """The objects of one class in one frame.

    Attributes:
        true_ids: (G,) int64, the tracks of the true objects, each once.
        found_ids: (D,) int64, the tracks of the predicted objects, each once.
        similarity: (G, D) float64 from 0 to 1, such as the IoU of masks or boxes.
    """

    true_ids: np.ndarray
    found_ids: np.ndarray
    similarity: np.ndarray


class TrackedSequence(NamedTuple):
    """The frames of a video in order, with tracks numbered from 0 without gaps.

    Attributes:
        frames: as they are, but for the ids.
        true_lengths: (N,) float64, the number of frames of each true track.
        found_lengths: (M,) float64, the same of predicted tracks.
    """

    frames: Sequence[Frame]
    true_lengths: np.ndarray
    found_lengths: np.ndarray

    @classmethod
    def of(cls, frames: Sequence[Frame]) -> TrackedSequence:
        """Number the tracks of ``frames``, whose ids may be any integers.

        Raises:
            ValueError: an id twice in a frame.
        """
        true_ids, true_lengths = _number([frame.true_ids for frame in frames], "true")
        found_ids, found_lengths = _number([frame.found_ids for frame in frames], "predicted")
        numbered = [
            Frame(true, found, np.asarray(frame.similarity, dtype=np.float64))
            for true, found, frame in zip(true_ids, found_ids, frames, strict=True)
        ]
        return cls(numbered, true_lengths, found_lengths)


def add_sums(a: Sums, b: Sums) -> Sums:
    """Add the sums of two sequences."""
    return {name: a[name] + b[name] for name in a}


def _number(ids: Sequence[np.ndarray], kind: str) -> tuple[list[np.ndarray], np.ndarray]:
    for i, frame in enumerate(ids):
        if len(np.unique(frame)) < len(frame):
            raise ValueError(f"frame {i} has a {kind} track twice: {sorted(frame.tolist())}")
    together = np.concatenate([np.asarray(frame, dtype=np.int64) for frame in ids] or [[]])
    _, numbers, lengths = np.unique(together, return_inverse=True, return_counts=True)
    ends = np.cumsum([len(frame) for frame in ids])[:-1]
    return np.split(numbers, ends) if ids else [], lengths.astype(np.float64)
