"""Track queries become tracks: TrackFormer's inference."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ddep.modeling.tracking.similarity import mask_overlaps


class QueryTrack:
    """One object: its query, and what it has been so far.

    Attributes:
        id: its number, from 1.
        query: (C,), of the last frame in which it was found.
        lost: for how many frames it has not been found.
    """

    query: Tensor

    def __init__(self, track_id: int) -> None:
        self.id = track_id
        self.lost = 0
        self._class_sum: Tensor | float = 0.0
        self._frames = 0

    @property
    def class_probabilities(self) -> Tensor:
        """(K,), the mean over the frames in which it was found."""
        return self._class_sum / self._frames

    def add(self, query: Tensor, class_probabilities: Tensor) -> None:
        """Take what a frame in which it was found says: its query (C,) and classes (K,)."""
        self.query, self.lost = query, 0
        self._class_sum = self._class_sum + class_probabilities
        self._frames += 1


class Found(NamedTuple):
    """The tracks that are seen in a frame, and the row of each one's query."""

    tracks: list[QueryTrack]
    rows: list[int]


class QueryTracker:
    """Keeps a query for each object, whose output is its query in the next frame.

    TrackFormer (Meinhardt et al., 2022, arXiv 2101.02702, section 3.2). A track query that is
    confident continues its track, even after some frames in which it was not. A confident learned
    query begins a track. Of two queries with nearly the same mask only one stays: that of a track
    rather than a learned one, and of two tracks the more confident one.

    What is remembered does not grow with the video.
    """

    def __init__(
        self,
        *,
        num_queries: int,
        detection_score: float,
        track_score: float,
        duplicate_overlap: float,
        patience: int,
    ) -> None:
        """
        Args:
            num_queries: learned queries, which come before the track queries.
            detection_score: a track begins above this probability of its best class.
            track_score: a track continues above this one.
            duplicate_overlap: masks with a larger intersection over union are of one object.
            patience: a track ends when it has not been found for more frames.
        """
        self._num_queries = num_queries
        self._detection_score = detection_score
        self._track_score = track_score
        self._duplicate_overlap = duplicate_overlap
        self._patience = patience
        self._tracks: list[QueryTrack] = []
        self._next_id = 1

    @property
    def queries(self) -> list[Tensor]:
        """The track queries of the next frame, (C,) each."""
        return [track.query for track in self._tracks]

    def update(self, class_probabilities: Tensor, masks: Tensor, queries: Tensor) -> Found:
        """Take what the model says of the next frame.

        Args:
            class_probabilities: (Q + E, K) float32 of all queries, the E track queries last; with
                the probability of no object they add up to 1.
            masks: (Q + E, h, w) mask logits.
            queries: (Q + E, C), as the last layer leaves them.
        """
        scores = class_probabilities.amax(1).cpu()
        is_track = torch.arange(len(scores)) >= self._num_queries
        least = torch.where(is_track, self._track_score, self._detection_score)
        seen = (scores > least) & (masks > 0).flatten(1).any(1).cpu()
        # Tracks first, and among them and the others the most confident.
        order = torch.argsort(scores + is_track.float(), descending=True, stable=True)
        rows = order[seen[order]]
        inside = (masks[rows.to(masks.device)] > 0).flatten(1).cpu()
        overlaps = mask_overlaps(inside, inside)
        found = Found([], [])
        for place in self._distinct(overlaps):
            row = int(rows[place])
            found.rows.append(row)
            found.tracks.append(self._track_of(row))
            found.tracks[-1].add(queries[row], class_probabilities[row])
        self._tracks = [*found.tracks, *self._lost(seen)]
        return found

    def _distinct(self, overlaps: Tensor) -> list[int]:
        """The places of masks that are not those of earlier ones, (N, N) -> M of them."""
        kept: list[int] = []
        for place, others in enumerate(overlaps):
            if not (others[kept] > self._duplicate_overlap).any():
                kept.append(place)
        return kept

    def _track_of(self, row: int) -> QueryTrack:
        if row >= self._num_queries:
            return self._tracks[row - self._num_queries]
        self._next_id += 1
        return QueryTrack(self._next_id - 1)

    def _lost(self, seen: Tensor) -> list[QueryTrack]:
        """The tracks that may be found again; ``seen`` (Q + E,) bool: queries that found theirs."""
        lost = [
            track
            for track, is_seen in zip(self._tracks, seen[self._num_queries :], strict=True)
            if not is_seen
        ]
        for track in lost:
            track.lost += 1
        return [track for track in lost if track.lost <= self._patience]
