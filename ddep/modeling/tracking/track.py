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
        self._masks: dict[int, Tensor] = {}  # by frame: the mean of those of all clips
        self._clips_of_frame: dict[int, int] = {}

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
            count = self._clips_of_frame.get(frame, 0) + 1
            old = self._masks.get(frame)
            self._masks[frame] = mask if old is None else old + (mask - old) / count
            self._clips_of_frame[frame] = count
            pixels = (mask > 0).flatten()
            if frame > self.last_seen and pixels.any():
                self.last_seen, self.last_pixels = frame, pixels

    def pixels(self, frames: range) -> Tensor | None:
        """The mask in ``frames``, (P,) bool; None if the object cannot be seen in any of them."""
        masks = [self._masks.get(frame) for frame in frames]
        known = next((mask for mask in masks if mask is not None), None)
        if known is None:
            return None
        empty = torch.zeros_like(known)
        inside = torch.stack([empty if mask is None else mask for mask in masks]) > 0
        return inside.flatten() if inside.any() else None

    def take(self, frame: int) -> Tensor | None:
        """Forget and return the mask of a frame, (h, w); None if the object cannot be seen."""
        self._clips_of_frame.pop(frame, None)
        mask = self._masks.pop(frame, None)
        return None if mask is None or not (mask > 0).any() else mask
