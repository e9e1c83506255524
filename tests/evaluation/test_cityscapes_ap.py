"""Cityscapes' average precision on cases that can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ddep.evaluation.cityscapes_ap import (
    THRESHOLDS,
    ClassMatches,
    average_precision,
    match_instances,
)

CAR, PERSON, VOID = 26, 24, 4
SHAPE = (20, 60)


def box(left: int, right: int, rows: int = 20) -> np.ndarray:
    """A mask of 20 pixels, or fewer, in height."""
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:rows, left:right] = True
    return mask


def paint(*parts: tuple[int, np.ndarray]) -> np.ndarray:
    ids = np.full(SHAPE, 7)
    for object_id, mask in parts:
        ids[mask] = object_id
    return ids


def match(ids: np.ndarray, *predictions: tuple[int, float, np.ndarray]) -> ClassMatches:
    """What is found of cars."""
    return match_instances(ids, predictions, things=[CAR, PERSON], void=[0, VOID, 29])[CAR]


def counted(matches: ClassMatches, index: int = 0) -> tuple[list[float], list[bool], int]:
    return matches.scores[index], matches.correct[index], matches.missed[index]


def test_thresholds() -> None:
    np.testing.assert_allclose(THRESHOLDS, [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])


def test_a_match_is_above_the_threshold() -> None:
    ids = paint((26001, box(0, 10)))
    # 160 of 200 pixels: an IoU of 0.8 is above 0.75 and no higher threshold.
    matches = match(ids, (CAR, 0.9, box(0, 8)))
    assert [sum(correct) for correct in matches.correct] == [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    assert matches.missed == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    np.testing.assert_allclose(matches.average_precisions(), [1, 1, 1, 1, 1, 1, 0, 0, 0, 0])


def test_of_several_predictions_the_one_with_the_highest_score_is_right() -> None:
    ids = paint((26001, box(0, 10)), (26002, box(30, 40)))
    predictions = [(CAR, 0.3, box(0, 9)), (CAR, 0.8, box(0, 8)), (PERSON, 0.9, box(30, 40))]
    assert counted(match(ids, *predictions)) == ([0.8, 0.3], [True, False], 1)


def test_groups_and_small_objects_are_neither_found_nor_missed() -> None:
    group, small = box(0, 10), box(20, 29, rows=11)
    assert np.count_nonzero(small) == 99
    ids = paint((26, group), (26001, small))
    for matches in (match(ids), match(ids, (CAR, 0.5, group), (CAR, 0.6, small))):
        assert counted(matches) == ([], [], 0)
        assert np.isnan(matches.average_precisions()).all()
    ids = paint((26001, box(20, 30, rows=10)))
    assert counted(match(ids)) == ([], [], 1)
    np.testing.assert_array_equal(match(ids).average_precisions(), np.zeros(10))


@pytest.mark.parametrize("ignored", [VOID, CAR])
def test_predictions_on_void_and_groups_are_not_counted(ignored: int) -> None:
    ids = paint((ignored, box(0, 40)))
    # 12 of its 20 columns are ignored: more than half, but not more than 60 %.
    prediction = box(28, 48)
    matches = match(ids, (CAR, 0.5, prediction))
    assert [len(scores) for scores in matches.scores] == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    assert not any(map(any, matches.correct))


def test_predictions_in_small_objects_are_not_counted() -> None:
    ids = paint((26001, box(0, 9, rows=11)))
    # All of it, though its IoU is below 0.5.
    assert counted(match(ids, (CAR, 0.5, box(0, 4, rows=10)))) == ([], [], 0)
    # 60 of 200 pixels: wrong, unless they belong to a small group and count twice.
    prediction = CAR, 0.5, box(3, 23, rows=10)
    assert counted(match(ids, prediction)) == ([0.5], [False], 0)
    assert counted(match(paint((26, box(0, 9, rows=11))), prediction)) == ([], [], 0)


def test_groups_of_other_classes_and_void_instances_do_count() -> None:
    for other in (PERSON, 29001, 7):
        ids = paint((other, box(0, 40)))
        assert counted(match(ids, (CAR, 0.5, box(0, 40)))) == ([0.5], [False], 0)
    assert counted(match(paint(), (CAR, 0.5, box(0, 0)))) == ([], [], 0)


def test_average_precision_takes_each_point_half_way_to_its_neighbours() -> None:
    assert average_precision([0.9], [True], missed=0) == 1
    assert average_precision([], [], missed=3) == 0
    # Recalls 1/2 (of 0.9), 1/2 (0.6), 1 (0.3) with precisions 1, 1/2, 2/3; and recall 0.
    found = average_precision([0.6, 0.9, 0.3], [False, True, True], missed=0)
    expected = 2 / 3 * (1 - 1 / 2) / 2 + 1 / 2 * (1 - 1 / 2) / 2 + 1 * (1 / 2) / 2 + 1 * (1 / 2) / 2
    assert found == pytest.approx(expected)
    # Predictions of one score count together.
    assert average_precision([0.5, 0.5], [True, False], missed=1) == pytest.approx(
        1 / 2 * (1 / 2) / 2 + 1 * (1 / 2) / 2
    )


def test_images_are_added() -> None:
    ids = paint((26001, box(0, 10)))
    matches = match(ids, (CAR, 0.9, box(0, 10)))
    matches.add(match(ids, (CAR, 0.8, box(20, 30))))
    assert counted(matches) == ([0.9, 0.8], [True, False], 1)
    assert (matches.objects, matches.predictions) == (2, 2)
