"""Instances of clips become tracks through a video of any length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ddep.modeling.tracking.clip_instances import ClipInstances
from ddep.modeling.tracking.frame_tracks import FrameTracks
from ddep.modeling.tracking.similarity import cosines, mask_overlaps
from ddep.modeling.tracking.track import Track


class ClipLinker:
    """Links the instances of one clip after the other with the tracks so far.

    First, the tracks that can be seen in the frames that the clip shares with those before it are
    assigned to its instances, so that the sum of scores is largest. The score of a pair is
    ``overlap_weight`` times the intersection over union of the masks in these frames plus
    ``similarity_weight`` times the cosine of the embeddings (0 if it is negative); pairs that
    overlap less than ``min_overlap`` are not made. If the clip shares no frames, the last
    mask of every track is compared with that of the clip's first frame. Then tracks that are left
    are found again among the confident instances that are left, by the cosine alone. Confident
    instances that are still left start tracks.

    Only frames that a later clip can cover are remembered, and only tracks that were seen in the
    last ``max_gap`` frames, so that memory does not grow with the video.
    """

    def __init__(
        self,
        *,
        overlap_weight: float,
        similarity_weight: float,
        min_overlap: float,
        refind_threshold: float,
        new_threshold: float,
        max_gap: int,
    ) -> None:
        """
        Args:
            overlap_weight, similarity_weight: see above.
            min_overlap: the least intersection over union of a pair in the first step.
            refind_threshold: the least cosine of a track and an instance that it is found again as.
            new_threshold: the least probability of the best class of a confident instance.
            max_gap: a track ends when it was not seen in more frames than this.
        """
        self._overlap_weight = overlap_weight
        self._similarity_weight = similarity_weight
        self._min_overlap = min_overlap
        self._refind_threshold = refind_threshold
        self._new_threshold = new_threshold
        self._max_gap = max_gap
        self._tracks: list[Track] = []
        self._next_id = 1
        self._pending = range(0)  # the frames whose masks may still change
        # Of the last clip's sizes, for frames without tracks.
        self._no_classes, self._no_masks = torch.zeros(0, 0), torch.zeros(0, 0, 0)

    def add(self, clip: ClipInstances, first_frame: int) -> list[FrameTracks]:
        """Link the next clip.

        Args:
            clip: its instances; all clips have masks of one size. Where clips share frames, the
                logits of a track are averaged.
            first_frame: the number of its first frame. It is not before that of the last clip, and
                there is no frame between the two that is in neither.

        Returns:
            The frames before ``first_frame`` that were not returned yet, in order.

        Raises:
            ValueError: a clip at another place.
        """
        frames = range(first_frame, first_frame + clip.masks.shape[1])
        if not self._pending.start <= first_frame <= self._pending.stop:
            raise ValueError(
                f"a clip starts at frame {first_frame}; expected {self._pending.start} to "
                f"{self._pending.stop}"
            )
        self._no_classes, self._no_masks = clip.class_probabilities[:0], clip.masks[:0, 0]
        tracks = self._find_tracks(clip, frames)
        for number, track in enumerate(tracks):
            if track is not None:
                track.add(clip, number, first_frame)
        self._pending = range(self._pending.start, max(self._pending.stop, frames.stop))
        return self._finish_frames(first_frame)

    def finish(self) -> list[FrameTracks]:
        """Return the frames that are left, in order, when there is no other clip."""
        return self._finish_frames(self._pending.stop)

    def _find_tracks(self, clip: ClipInstances, frames: range) -> list[Track | None]:
        """The track of each instance, old or new; None for one that has none."""
        found: list[Track | None] = [None] * len(clip.masks)
        confident = clip.scores >= self._new_threshold
        tracks = [track for track in self._tracks if self._continues(track, frames.start)]
        if tracks and found:
            for row, column in self._pairs(tracks, clip, frames, confident):
                found[column] = tracks[row]
        for number in confident.nonzero().flatten().tolist():
            if found[number] is None:
                found[number] = Track(self._next_id)
                self._tracks.append(found[number])
                self._next_id += 1
        return found

    def _pairs(
        self, tracks: Sequence[Track], clip: ClipInstances, frames: range, confident: Tensor
    ) -> list[tuple[int, int]]:
        """Places in ``tracks`` and in ``clip`` of what belongs together."""
        similarity = cosines(torch.stack([track.embedding for track in tracks]), clip.embeddings)
        shared = range(frames.start, min(self._pending.stop, frames.stop))
        of_clip = clip.masks[:, : max(1, len(shared))].flatten(1) > 0
        of_tracks = [track.pixels(shared) if shared else track.last_pixels for track in tracks]
        visible = [row for row, mask in enumerate(of_tracks) if mask is not None]
        pairs: list[tuple[int, int]] = []
        if visible:
            overlap = mask_overlaps(torch.stack([of_tracks[row] for row in visible]), of_clip)
            alike = similarity[visible].clamp(min=0)
            scores = self._overlap_weight * overlap + self._similarity_weight * alike
            found = assign(scores, overlap >= self._min_overlap)
            pairs = [(visible[row], column) for row, column in found]
        may_return = (similarity >= self._refind_threshold) & confident
        may_return[[row for row, _ in pairs]] = False
        may_return[:, [column for _, column in pairs]] = False
        return pairs + assign(similarity, may_return)

    def _continues(self, track: Track, frame: int) -> bool:
        """Whether what is seen in ``frame`` may be ``track``, which has not ended."""
        return frame - 1 - track.last_seen <= self._max_gap

    def _finish_frames(self, stop: int) -> list[FrameTracks]:
        """Take away the frames before ``stop``, and tracks that have ended by then."""
        finished = [self._finish_frame(frame) for frame in range(self._pending.start, stop)]
        self._pending = range(stop, self._pending.stop)
        self._tracks = [track for track in self._tracks if self._continues(track, stop)]
        return finished

    def _finish_frame(self, frame: int) -> FrameTracks:
        shown = [(track, mask) for track in self._tracks if (mask := track.take(frame)) is not None]
        return FrameTracks(
            frame,
            [track.id for track, _ in shown],
            _stack([track.class_probabilities for track, _ in shown], self._no_classes),
            _stack([mask for _, mask in shown], self._no_masks),
        )


def assign(scores: Tensor, allowed: Tensor) -> list[tuple[int, int]]:
    """Pair rows with columns so that the sum of the pairs' scores is largest.

    Args:
        scores: (M, N), on the CPU; not negative where pairs are allowed.
        allowed: (M, N) bool, which pairs may be made.

    Returns:
        Row and column of each pair; none is in two pairs.
    """
    rows, columns = linear_sum_assignment(scores.where(allowed, 0).numpy(), maximize=True)
    return [
        (int(row), int(column))
        for row, column in zip(rows, columns, strict=True)
        if allowed[row, column]
    ]


def _stack(tensors: Sequence[Tensor], empty: Tensor) -> Tensor:
    return torch.stack(list(tensors)) if tensors else empty
