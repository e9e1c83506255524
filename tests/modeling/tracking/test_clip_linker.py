from __future__ import annotations

import itertools

import pytest
import torch

from ddep.modeling.tracking.clip_linker import assign
from tests.modeling.tracking.squares import clip, linker, mask, no_instances, places, track

ONE, OTHER = [1.0, 0.0], [0.0, 1.0]
# They meet in the middle; the places are equal in frame 4.
RIGHT, LEFT = [list(range(2, 20, 2)), list(range(18, 0, -2))]


@pytest.mark.parametrize(("length", "stride"), [(4, 2), (3, 1), (5, 3), (9, 3), (20, 10)])
def test_two_equal_squares_keep_their_identities_when_they_cross(length: int, stride: int) -> None:
    """Neither looks nor the place in one frame tell them apart, but shared frames do."""
    found = track(linker(), [RIGHT, LEFT], [ONE, ONE], length=length, stride=stride)
    assert [frame.frame for frame in found] == list(range(9))
    first = found[0].track_ids
    assert sorted(first) == [1, 2]
    by_place = {places(found[0])[number]: number for number in first}
    right, left = by_place[2], by_place[18]
    for number, frame in enumerate(found):
        assert places(frame) == {right: RIGHT[number], left: LEFT[number]}


def test_without_shared_frames_queries_tell_them_apart_where_they_meet() -> None:
    different = track(linker(), [RIGHT, LEFT], [ONE, OTHER], length=1, stride=1)
    ids = {places(different[0])[number]: number for number in (1, 2)}
    assert all(
        places(frame) == {ids[2]: RIGHT[number], ids[18]: LEFT[number]}
        for number, frame in enumerate(different)
    )
    # With equal queries, the order of the instances decides.
    ends = set()
    for seed in range(8):
        found = track(linker(), [RIGHT, LEFT], [ONE, ONE], length=1, stride=1, seed=seed)
        right = next(number for number, left in places(found[0]).items() if left == 2)
        ends.add(places(found[-1])[right])
    assert ends == {2, 18}


def test_a_track_is_found_again_by_its_query_unless_it_has_ended() -> None:
    path = [3, 3, *[None] * 4, 20, 20]
    for length in (1, 2):
        found = track(linker(max_gap=4), [path], [ONE], length=length, stride=1)
        assert [places(frame) for frame in found] == [
            {} if left is None else {1: left} for left in path
        ]
    ended = track(linker(max_gap=3), [path], [ONE], length=1, stride=1)
    assert [places(frame) for frame in ended][-2:] == [{2: 20}] * 2
    # The frames of a clip in which it is not seen count.
    for max_gap, number in ((2, 1), (1, 2)):
        tracks = linker(max_gap=max_gap)
        tracks.add(clip([[3, None, None]], [ONE]), 0)
        tracks.add(clip([[20]], [ONE]), 3)
        assert places(tracks.finish()[-1]) == {number: 20}
    # Something else is no continuation, nor is what is not confident.
    tracks = linker()
    tracks.add(clip([[3]], [ONE]), 0)
    tracks.add(clip([[20], [25]], [OTHER, ONE], [[0.9, 0.05], [0.2, 0.1]]), 1)
    assert places(tracks.finish()[-1]) == {2: 20}


def test_a_track_that_continues_is_not_found_again_elsewhere() -> None:
    tracks = linker()
    tracks.add(clip([[3]], [ONE]), 0)
    tracks.add(clip([[20], [4]], [ONE, ONE]), 1)
    assert places(tracks.finish()[-1]) == {1: 4, 2: 20}


def test_without_shared_frames_a_track_is_found_again_where_it_was_last_seen() -> None:
    tracks = linker()
    tracks.add(clip([[3], [14]], [ONE, ONE]), 0)
    first = tracks.add(no_instances(1), 1)
    tracks.add(clip([[15], [4]], [ONE, ONE]), 2)
    assert places(tracks.finish()[-1]) == {n: left + 1 for n, left in places(first[0]).items()}


def test_what_is_not_confident_continues_a_track_but_starts_none() -> None:
    tracks = linker()
    weak = [[0.2, 0.1]]
    assert tracks.add(clip([[3]], [ONE], weak), 0) == []
    [frame] = tracks.add(clip([[3]], [ONE]), 1)
    assert frame.track_ids == [] and frame.masks.shape == (0, 8, 32)
    assert frame.class_probabilities.shape == (0, 2)
    [frame] = tracks.add(clip([[4]], [ONE], weak), 2)
    assert places(frame) == {1: 3}
    [frame] = tracks.finish()
    assert places(frame) == {1: 4}


def test_probabilities_and_logits_are_means_over_clips() -> None:
    tracks = linker()
    values = torch.tensor([[0.5, 0.2], [0.8, 0.1], [0.2, 0.6]])
    logits = torch.randn(3, 2, 8, 32, generator=torch.Generator().manual_seed(0)) + mask(4)
    for number in range(3):
        one = clip([[4, 4]], [ONE], values[number : number + 1].tolist())
        found = tracks.add(one._replace(masks=logits[number : number + 1]), number)
        assert [frame.frame for frame in found] == ([number - 1] if number else [])
    torch.testing.assert_close(found[0].class_probabilities, values.mean(0, keepdim=True))
    torch.testing.assert_close(found[0].masks[0], (logits[0, 1] + logits[1, 0]) / 2)
    last, end = tracks.finish()
    torch.testing.assert_close(last.masks[0], (logits[1, 1] + logits[2, 0]) / 2)
    torch.testing.assert_close(end.masks[0], logits[2, 1])


def test_three_clips_of_one_frame_count_alike() -> None:
    tracks = linker()
    logits = torch.randn(3, 3, 8, 32, generator=torch.Generator().manual_seed(0)) + mask(4)
    for number in range(3):
        tracks.add(clip([[4] * 3], [ONE])._replace(masks=logits[number : number + 1]), number)
    expected = (logits[0, 2] + logits[1, 1] + logits[2, 0]) / 3
    torch.testing.assert_close(tracks.finish()[0].masks[0], expected)


def test_a_video_without_instances_has_frames_without_tracks() -> None:
    found = track(linker(), [[None] * 5], [ONE], length=2, stride=1)
    assert [(frame.frame, frame.track_ids) for frame in found] == [(n, []) for n in range(5)]
    assert linker().finish() == []


def test_a_video_of_one_frame_is_one_clip() -> None:
    [frame] = track(linker(), [[7]], [ONE], length=4, stride=2)
    assert places(frame) == {1: 7}


@pytest.mark.parametrize("first", [0, 4])
def test_clips_in_another_order_are_refused(first: int) -> None:
    tracks = linker()
    tracks.add(clip([[1, 1]], [ONE]), 0)
    tracks.add(clip([[1, 1]], [ONE]), 1)
    with pytest.raises(ValueError, match=f"starts at frame {first}; expected 1 to 3"):
        tracks.add(clip([[1, 1]], [ONE]), first)


def test_what_is_remembered_does_not_grow_with_the_video() -> None:
    """Objects appear for three frames all the time, at ever other places."""
    tracks = linker(max_gap=4)
    generator = torch.Generator().manual_seed(0)
    masks, remembered = [], []
    for number in range(200):
        path = [int(torch.randint(0, 28, (), generator=generator))] * 3
        tracks.add(clip([path], torch.randn(1, 16, generator=generator).tolist()), number)
        remembered.append(len(tracks._tracks))
        masks.append(sum(len(one._masks) for one in tracks._tracks))
    assert tracks._next_id > 100
    # A track is seen in a clip's 3 frames, and remembered for 4 more; 3 frames are pending.
    assert max(remembered) <= 3 + 4 + 1 and max(masks) <= 3 * 3


@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (1, 1)])
def test_assignment_is_the_best_of_all(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        scores = torch.rand(shape, generator=generator, dtype=torch.float64)
        found = assign(scores, scores >= 0.4)
        total = sum(float(scores[pair]) for pair in found)
        assert all(scores[pair] >= 0.4 for pair in found)
        rows, columns = zip(*found, strict=True) if found else ((), ())
        assert len(set(rows)) == len(set(columns)) == len(found)
        best = 0.0
        smaller = min(shape)
        for chosen in itertools.permutations(range(max(shape)), smaller):
            pairs = [(i, j) if shape[0] <= shape[1] else (j, i) for i, j in enumerate(chosen)]
            best = max(best, sum(float(scores[p]) for p in pairs if scores[p] >= 0.4))
        assert total == pytest.approx(best)


def test_nothing_is_assigned_where_no_pair_is_allowed() -> None:
    assert assign(torch.tensor([[0.1, 0.9]]), torch.tensor([[False, False]])) == []
