from __future__ import annotations

import pickle
import random

import numpy as np
import pytest
import torch

from ddep.data.frames import FramesOnDemand, draw_frames


def draw(seed: int, length: int, number: int, reach: int, *, shuffle: bool = False) -> list[int]:
    random.seed(seed)
    np.random.seed(seed)
    return draw_frames(length, number, reach, shuffle=shuffle)


@pytest.mark.parametrize(("length", "number", "reach"), [(30, 4, 5), (3, 5, 20), (10, 1, 0)])
def test_one_frame_is_uniform_and_the_others_are_near_it(length, number, reach) -> None:
    """The random numbers are those of Mask2Former-video's mapper."""
    for seed in range(200):
        random.seed(seed)
        np.random.seed(seed)
        reference = random.randrange(length)
        near = [*range(max(0, reference - reach), min(length, reference + reach + 1))]
        near.remove(reference)
        expected = [reference]
        if number > 1:
            expected += np.random.choice(np.array(near), number - 1).tolist()
        assert draw(seed, length, number, reach) == sorted(expected)


def test_a_frame_may_come_twice_but_not_the_first_one() -> None:
    clips = [draw(seed, 4, 3, 1) for seed in range(100)]
    assert any(len(set(clip)) == 2 for clip in clips)
    assert all(len(set(clip)) > 1 for clip in clips)


def test_a_video_of_one_frame_repeats_it() -> None:
    assert draw(0, 1, 3, 20) == [0, 0, 0]
    assert draw(0, 1, 1, 20) == [0]


def test_their_order_can_be_random() -> None:
    clips = [draw(seed, 50, 4, 50, shuffle=True) for seed in range(20)]
    assert sum(clip == sorted(clip) for clip in clips) < 5
    assert [sorted(clip) for clip in clips] == [draw(seed, 50, 4, 50) for seed in range(20)]


def read_as_number(path: str) -> torch.Tensor:
    return torch.tensor(int(path))


def test_frames_are_read_when_they_are_asked_for() -> None:
    asked = []
    frames = FramesOnDemand(["3", "5", "7", "9"], lambda path: asked.append(path) or path)
    assert len(frames) == 4
    assert not asked
    assert frames[1] == frames[1] == "5"
    assert frames[-1] == "9"
    assert frames[1:3] == ["5", "7"]
    assert asked == ["5", "5", "9", "5", "7"]
    with pytest.raises(IndexError):
        frames[4]


def test_frames_reach_other_processes() -> None:
    frames = pickle.loads(pickle.dumps(FramesOnDemand(["3", "5"], read_as_number)))
    assert [frame.item() for frame in frames] == [3, 5]
