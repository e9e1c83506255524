"""What tracking metrics compare: overlaps, regions to ignore, things that look alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import pytest

from ddep.evaluation.tracking_frames import boxes_of, class_frames, disjoint_masks
from ddep.evaluation.video_tracks import VideoTrack
from tests.evaluation.small_videos import HEIGHT, WIDTH, annotation, encode


def frame_record(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {"height": HEIGHT, "width": WIDTH, "length": 1, "annotations": [list(annotations)]}


def boxed(track: int, box: list[float], **values: Any) -> dict[str, Any]:
    return {"id": track, "category_id": 0, "iscrowd": 0, "bbox": box, **values}


def test_the_higher_score_has_the_pixels() -> None:
    low = VideoTrack(0, [encode(0, 0, 10, 10), encode(0, 0, 5, 5), None], 0, score=0.5)
    high = VideoTrack(1, [encode(0, 5, 10, 10), encode(0, 0, 9, 9), None], 0, score=0.9)
    other = VideoTrack(0, [None, encode(15, 20, 5, 5), encode(0, 0, 0, 0)], 0, score=0.7)
    first, second, third = disjoint_masks([low, high, other])
    assert np.array_equal(mask_util.decode(first[0]), mask_util.decode(encode(0, 0, 10, 5)))
    assert np.array_equal(mask_util.decode(first[1]), mask_util.decode(encode(0, 5, 10, 10)))
    assert (first.keys(), second.keys(), third.keys()) == ({0, 1}, {1, 2}, set())
    assert mask_util.area(second[1]) == 81


def test_boxes_of_masks_and_of_the_model() -> None:
    tracks = [VideoTrack(0, [encode(2, 3, 4, 5), encode(0, 0, 0, 0), None], 0)]
    assert boxes_of(tracks, None) == [{0: [3, 2, 5, 4]}, {}, {}]
    assert boxes_of(tracks, [[None, (1, 2, 3, 4), None]]) == [{}, {0: (1, 2, 3, 4)}, {}]


def test_regions_to_ignore() -> None:
    """More than half inside two crowds' masks together is left out, unless it is a true object."""
    record = frame_record(
        annotation(3, 0, encode(0, 0, 4, 4)),
        annotation(9, 0, encode(0, 0, 10, 10), iscrowd=1),
        annotation(10, 0, encode(0, 10, 10, 5), iscrowd=1),
        annotation(4, 1, encode(15, 0, 5, 5)),
    )
    found = {
        0: encode(0, 0, 4, 5),  # the object, inside
        1: encode(0, 8, 10, 13),  # 7 of 13 columns inside, 2 of the first crowd and 5 of the second
        2: encode(0, 8, 10, 14),  # half
        3: encode(15, 0, 5, 5),  # of another class
    }
    (frame,) = class_frames(record, 0, [found])
    assert frame.true_ids.tolist() == [3]
    assert frame.found_ids.tolist() == [0, 2, 3]
    assert frame.similarity.tolist() == [[pytest.approx(0.8), 0, 0]]
    (other,) = class_frames(record, 1, [found])
    assert (other.true_ids.tolist(), other.found_ids.tolist()) == ([4], [0, 1, 2, 3])


def test_things_that_look_alike() -> None:
    """What matches a distractor is left out; what matches another thing counts, as a mistake."""
    record = frame_record(
        boxed(1, [0, 0, 10, 10]),
        boxed(2, [20, 0, 10, 10], iscrowd=1, distractor=True),
        boxed(3, [40, 0, 10, 10], iscrowd=1, distractor=False),
        boxed(4, [0, 2, 10, 10], iscrowd=1, distractor=True),
    )
    found = {
        5: [0, 1, 10, 10],  # as close to the first as to the fourth, which has a better one
        6: [0, 2, 10, 10],
        7: [20, 0, 10, 20],  # IoU 0.5
        8: [20, 40, 10, 10],
        9: [40, 0, 10, 10],
    }
    (frame,) = class_frames(record, 0, [found], are_boxes=True)
    assert frame.true_ids.tolist() == [1]
    assert frame.found_ids.tolist() == [5, 8, 9]
    assert frame.similarity.tolist() == [[pytest.approx(9 / 11), 0, 0]]


def test_frames_without_objects() -> None:
    record = frame_record()
    (frame,) = class_frames(record, 0, [{}])
    assert frame.similarity.shape == (0, 0)
    (frame,) = class_frames(record, 0, [{1: [0, 0, 3, 3]}], are_boxes=True)
    assert frame.similarity.shape == (0, 1)
