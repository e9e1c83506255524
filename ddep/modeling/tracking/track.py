"""What is remembered of a track while later clips may continue it."""

from __future__ import annotations

import torch
from torch import Tensor

from ddep.modeling.tracking.clip_instances import ClipInstances


class Track:
    """One object: its masks in the frames that are not finished, and what it looks like.

    Attributes:
        id: its number.
        embedding: (C,) float32, from the last clip that it was found in.
        last_seen: the last frame in which its mask was not empty.
        last_pixels: the mask in that frame, (P,) bool.
    """

    id: int
    embedding: Tensor
    last_seen: int
    last_pixels: Tensor | None

    def __init__(self, track_id: int) -> None:
        self.id = track_id
        self.last_seen = -1
        self.last_pixels = None
        self._class_sum: Tensor | float = 0.0
        self._clips = 0
        # By frame: the mean of the masks of all clips so far, and how many these are.
        self._masks: dict[int, tuple[Tensor, int]] = {}

    @property
    def class_probabilities(self) -> Tensor:
        """(K,) float32, the mean over the clips in which the object was found."""
        return self._class_sum / self._clips

    def add(self, clip: ClipInstances, number: int, first_frame: int) -> None:
        """Continue the track with instance ``number`` of a clip."""
        self.embedding = clip.embeddings[number]
        self._class_sum = self._class_sum + clip.class_probabilities[number]
        self._clips += 1
        for frame, mask in enumerate(clip.masks[number], start=first_frame):
            mean, count = self._masks.get(frame, (mask, 0))
            if count:
                mean = mean + (mask - mean) / (count + 1)
            self._masks[frame] = mean, count + 1
            pixels = (mask > 0).flatten()
            if frame > self.last_seen and pixels.any():
                self.last_seen, self.last_pixels = frame, pixels

    def pixels(self, frames: range) -> Tensor | None:
        """The mask in ``frames``, (P,) bool; None if the object cannot be seen in any of them."""
        masks = [self._masks[frame][0] for frame in frames if frame in self._masks]
        if not masks:
            return None
        empty = torch.zeros_like(masks[0])
        of_frames = [self._masks.get(frame, (empty, 0))[0] for frame in frames]
        inside = torch.stack(of_frames) > 0
        return inside.flatten() if inside.any() else None

    def take(self, frame: int) -> Tensor | None:
        """Forget and return the mask of a frame, (h, w); None if the object cannot be seen."""
        if frame not in self._masks:
            return None
        mask, _ = self._masks.pop(frame)
        return mask if (mask > 0).any() else None
