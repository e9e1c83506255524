"""True masks of generated videos, in which shapes that look alike cross and hide each other."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ddep.data.datasets.moving_scenes import draw_clip
from ddep.modeling.tracking import ClipInstances, cut_into_clips
from tests.modeling.tracking.squares import linker

SIDE, FRAMES, CLASSES = 64, 12, 4


def identities(seed: int, length: int, stride: int) -> dict[int, set[int]]:
    """The tracks that each shape has in the frames where it is seen.

    A clip's instances are the shapes in it, at the resolution of a network, in a random order.
    Embeddings tell classes apart, not shapes of a class.
    """
    video = draw_clip(np.random.default_rng(seed), SIDE, FRAMES)
    generator = torch.Generator().manual_seed(seed)
    masks = {
        shape: F.avg_pool2d(2.0 * torch.from_numpy(video.tracks == shape) - 1, 2)
        for shape in video.class_ids
    }
    tracks, found = linker(), []
    for first, frames in cut_into_clips(range(FRAMES), length, stride):
        of_clip = {shape: mask[frames] for shape, mask in masks.items()}
        shapes = [shape for shape, mask in of_clip.items() if (mask > 0).any()]
        shapes = [shapes[n] for n in torch.randperm(len(shapes), generator=generator).tolist()]
        classes = torch.tensor([video.class_ids[shape] for shape in shapes])
        probabilities = 0.9 * F.one_hot(classes, CLASSES).float()
        of_shapes = torch.stack([of_clip[shape] for shape in shapes])
        found += tracks.add(ClipInstances(probabilities, of_shapes, probabilities), first)
    numbers = defaultdict(set)
    for frame in found + tracks.finish():
        for number, mask in zip(frame.track_ids, frame.masks, strict=True):
            [shape] = [n for n, true in masks.items() if torch.equal(true[frame.frame], mask)]
            numbers[shape].add(number)
    return numbers


@pytest.mark.parametrize(("length", "stride"), [(4, 2), (6, 3), (3, 1)])
def test_clips_that_overlap_keep_all_identities(length: int, stride: int) -> None:
    shapes = 0
    for seed in range(6):
        numbers = identities(seed, length, stride)
        assert all(len(of_shape) == 1 for of_shape in numbers.values())
        assert len(set.union(*numbers.values())) == len(numbers)
        shapes += len(numbers)
    assert shapes >= 20


def test_single_frames_lose_some() -> None:
    lost = [len(of_shape) > 1 for seed in range(6) for of_shape in identities(seed, 1, 1).values()]
    assert any(lost)
