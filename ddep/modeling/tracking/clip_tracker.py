"""Tracks through a video of any length, by a model that takes one clip after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from detectron2.config import CfgNode
from torch import Tensor

from ddep.modeling.mask_rows import Resize
from ddep.modeling.tracking.clip_instances import clip_instances
from ddep.modeling.tracking.clip_linker import ClipLinker
from ddep.modeling.tracking.clips import cut_into_clips
from ddep.modeling.tracking.frame_tracks import FrameTracks
from ddep.modeling.video_postprocessing import positive_masks

# Frames of a clip where TEST.CLIP.FRAMES is 0 and a video may have any length.
FRAMES = 8


class Logits(Protocol):
    """What a model says about a clip; see :class:`ddep.modeling.meta_arch.ClipLogits`."""

    mask_cls: Tensor
    mask_pred: Tensor
    embeddings: Tensor
    padded_size: tuple[int, int]
    image_size: tuple[int, int]
    output_size: tuple[int, int]


@dataclass(frozen=True)
class ClipTracker:
    """How videos are cut into clips, and how the instances of clips become tracks.

    Attributes:
        frames: of a clip.
        stride: from the start of a clip to that of the next.
        score_threshold, max_instances: see :func:`clip_instances`.
        new_linker: makes what links the clips of one video.
    """

    frames: int
    stride: int
    score_threshold: float
    max_instances: int
    new_linker: Callable[[], ClipLinker]

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ClipTracker:
        """A tracker with the values of TEST.CLIP."""
        clip = cfg.TEST.CLIP
        frames = clip.FRAMES or FRAMES
        return cls(
            frames=frames,
            stride=min(clip.STRIDE, frames) or max(1, frames // 2),
            score_threshold=clip.SCORE_THRESHOLD,
            max_instances=clip.MAX_INSTANCES,
            new_linker=partial(
                ClipLinker,
                overlap_weight=clip.OVERLAP_WEIGHT,
                similarity_weight=clip.SIMILARITY_WEIGHT,
                min_overlap=clip.MIN_OVERLAP,
                refind_threshold=clip.REFIND_THRESHOLD,
                new_threshold=clip.NEW_THRESHOLD,
                max_gap=clip.MAX_GAP,
            ),
        )

    @torch.no_grad()
    def track(
        self, predict_clip: Callable[[Sequence[Tensor]], Logits], frames: Iterable[Tensor]
    ) -> Iterator[FrameTracks]:
        """Follow the objects of a video.

        Frames are read when their clip is due, and a frame's tracks are there when the next clip
        is done: the number of frames in memory does not depend on the video's length.

        Args:
            predict_clip: the model in evaluation, from T frames to what it says about them.
            frames: (3, H, W), all of one size.

        Yields:
            The tracks of each frame, in order.
        """
        linker = self.new_linker()
        resizes: tuple[Resize, ...] = ()
        for first_frame, clip in cut_into_clips(frames, self.frames, self.stride):
            logits = predict_clip(clip)
            resizes = (
                Resize(logits.padded_size, kept=logits.image_size),
                Resize(logits.output_size, kept=logits.output_size),
            )
            instances = clip_instances(
                logits.mask_cls,
                logits.mask_pred,
                logits.embeddings,
                score_threshold=self.score_threshold,
                max_instances=self.max_instances,
            )
            del logits  # all queries' masks
            for found in linker.add(instances, first_frame):
                yield _at_output_size(found, resizes)
        for found in linker.finish():
            yield _at_output_size(found, resizes)


def _at_output_size(found: FrameTracks, resizes: Sequence[Resize]) -> FrameTracks:
    """With masks of the frame's size, without tracks of which nothing is left there."""
    masks = positive_masks(found.masks, resizes)
    seen = masks.flatten(1).any(1)
    return FrameTracks(
        found.frame,
        [number for number, is_seen in zip(found.track_ids, seen.tolist(), strict=True) if is_seen],
        found.class_probabilities[seen],
        masks[seen],
    )
