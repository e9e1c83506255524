from __future__ import annotations

from collections.abc import Iterator

import pytest

from ddep.modeling.tracking import cut_into_clips


@pytest.mark.parametrize(
    ("frames", "length", "stride", "expected"),
    [
        (5, 3, 2, [(0, [0, 1, 2]), (2, [2, 3, 4])]),
        (6, 3, 2, [(0, [0, 1, 2]), (2, [2, 3, 4]), (3, [3, 4, 5])]),
        (4, 3, 3, [(0, [0, 1, 2]), (1, [1, 2, 3])]),
        (2, 3, 1, [(0, [0, 1])]),
        (1, 1, 1, [(0, [0])]),
        (3, 1, 1, [(0, [0]), (1, [1]), (2, [2])]),
        (0, 3, 1, []),
    ],
)
def test_clips_cover_all_frames_and_have_one_length(
    frames: int, length: int, stride: int, expected: list
) -> None:
    assert list(cut_into_clips(range(frames), length, stride)) == expected


def test_a_clip_is_made_when_its_last_frame_is_read() -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    clips = cut_into_clips(source(), 4, 2)
    for end in (4, 6, 8):
        assert len(next(clips)[1]) == 4 and len(read) == end
