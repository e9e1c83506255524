"""Squares that move along a row, as instances of clips."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddep.modeling.tracking import ClipInstances, ClipLinker, FrameTracks, cut_into_clips

HEIGHT, WIDTH, SIDE = 8, 32, 4


def linker(**changes: float) -> ClipLinker:
    values = {
        "overlap_weight": 1.0,
        "similarity_weight": 0.5,
        "min_overlap": 0.1,
        "refind_threshold": 0.8,
        "new_threshold": 0.3,
        "max_gap": 5,
    }
    return ClipLinker(**{**values, **changes})


def mask(left: int | None) -> Tensor:
    """(H, W) logits of a square that starts in column ``left``; None is a frame without it."""
    logits = torch.full((HEIGHT, WIDTH), -5.0)
    if left is not None:
        logits[2 : 2 + SIDE, left : left + SIDE] = 5.0
    return logits


def clip(
    paths: Sequence[Sequence[int | None]],
    embeddings: Sequence[Sequence[float]],
    probabilities: Sequence[Sequence[float]] | None = None,
) -> ClipInstances:
    """One instance for each path, which has the column of its square in each frame."""
    if probabilities is None:
        probabilities = [[0.9, 0.05]] * len(paths)
    masks = [torch.stack([mask(left) for left in path]) for path in paths]
    return ClipInstances(torch.tensor(probabilities), torch.stack(masks), torch.tensor(embeddings))


def no_instances(length: int) -> ClipInstances:
    """Those of a clip of ``length`` frames in which nothing is found."""
    masks = torch.zeros(0, length, HEIGHT, WIDTH)
    return ClipInstances(torch.zeros(0, 2), masks, torch.zeros(0, 2))


def track(
    linker: ClipLinker,
    paths: Sequence[Sequence[int | None]],
    embeddings: Sequence[Sequence[float]],
    *,
    length: int,
    stride: int,
    seed: int = 0,
) -> list[FrameTracks]:
    """Link the clips of a video; each has those objects that are in it, in a random order."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for first, frames in cut_into_clips(zip(*paths, strict=True), length, stride):
        of_clip = list(zip(*frames, strict=True))
        order = torch.randperm(len(paths), generator=generator).tolist()
        seen = [n for n in order if any(left is not None for left in of_clip[n])]
        instances = no_instances(len(frames))
        if seen:
            instances = clip([of_clip[n] for n in seen], [embeddings[n] for n in seen])
        found += linker.add(instances, first)
    return found + linker.finish()


def places(frame: FrameTracks) -> dict[int, int]:
    """The column of each track's square."""
    columns = (frame.masks > 0).any(1).long().argmax(1).tolist()
    return dict(zip(frame.track_ids, columns, strict=True))
