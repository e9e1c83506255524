"""Panoptic quality: cases computed by hand, and torchmetrics on random maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.detection import panoptic_quality as torchmetrics_panoptic_quality

from ddep.evaluation.panoptic_quality import (
    CategoryStatistics,
    average_quality,
    check_labels,
    match_segments,
)


def segments(*categories: int, crowd: tuple[int, ...] = ()) -> list[dict]:
    """Segments 1, 2, ... of these categories."""
    return [
        {"id": i, "category_id": category, "iscrowd": int(i in crowd)}
        for i, category in enumerate(categories, start=1)
    ]


def row(*runs: tuple[int, int]) -> np.ndarray:
    """A label map of one row: (segment id, number of pixels) from left to right."""
    return np.concatenate([np.full(n, i) for i, n in runs])[None]


def counts(statistics: CategoryStatistics) -> tuple[float, int, int, int]:
    return (
        statistics.iou_sum,
        statistics.true_positives,
        statistics.false_positives,
        statistics.false_negatives,
    )


def test_perfect():
    ids = row((1, 5), (2, 7), (0, 3))
    found = match_segments(ids, segments(10, 20), ids, segments(10, 20))
    assert {c: counts(s) for c, s in found.items()} == {10: (1, 1, 0, 0), 20: (1, 1, 0, 0)}


def test_iou_of_one_half_is_no_match():
    truth, prediction = row((1, 10)), row((1, 5), (0, 5))
    found = match_segments(truth, segments(10), prediction, segments(10))
    assert counts(found[10]) == (0, 0, 1, 1)
    just_above = row((1, 51), (0, 49))
    found = match_segments(row((1, 100)), segments(10), just_above, segments(10))
    assert counts(found[10]) == (0.51, 1, 0, 0)


def test_same_place_but_another_category_is_no_match():
    ids = row((1, 10))
    found = match_segments(ids, segments(10), ids, segments(20))
    assert counts(found[10]) == (0, 0, 0, 1)
    assert counts(found[20]) == (0, 0, 1, 0)


def test_void_does_not_count_in_the_union():
    """IoU 6 / (6 + 2 missed + 2 too many), where 4 more pixels lie on void."""
    truth = row((1, 8), (2, 2), (0, 4))
    prediction = row((0, 2), (1, 6), (1, 2), (1, 4))
    found = match_segments(truth, segments(10, 20), prediction, segments(10))
    assert counts(found[10]) == (pytest.approx(0.6), 1, 0, 0)
    assert counts(found[20]) == (0, 0, 0, 1)


def test_void_in_the_prediction_counts_in_the_union():
    found = match_segments(row((1, 10)), segments(10), row((1, 6), (0, 4)), segments(10))
    assert counts(found[10]) == (0.6, 1, 0, 0)


@pytest.mark.parametrize(("on_void", "false_positives"), [(5, 1), (6, 0)])
def test_prediction_mostly_on_void_is_no_false_positive(on_void, false_positives):
    truth = row((0, on_void), (1, 10 - on_void), (1, 100))
    prediction = row((1, 10), (0, 100))
    found = match_segments(truth, segments(20), prediction, segments(10))
    assert counts(found[10]) == (0, 0, false_positives, 0)


@pytest.mark.parametrize(
    ("crowd_category", "false_positives"), [(10, 0), (20, 1)], ids=["own", "other"]
)
def test_prediction_mostly_on_crowd_of_its_category_is_no_false_positive(
    crowd_category, false_positives
):
    truth = row((1, 8), (2, 20))
    prediction = row((1, 10), (0, 18))
    found = match_segments(
        truth, segments(crowd_category, 30, crowd=(1,)), prediction, segments(10)
    )
    assert counts(found[10]) == (0, 0, false_positives, 0)


def test_void_and_crowd_add_up():
    truth = row((0, 3), (1, 3), (2, 4))
    prediction = row((1, 10))
    found = match_segments(truth, segments(10, 20, crowd=(1,)), prediction, segments(10))
    assert counts(found[10]) == (0, 0, 0, 0)
    assert not found[10].seen


def test_crowd_is_neither_matched_nor_missed():
    ids = row((1, 10))
    found = match_segments(ids, segments(10, crowd=(1,)), ids, segments(10))
    assert counts(found[10]) == (0, 0, 0, 0)
    assert match_segments(ids, segments(10, crowd=(1,)), row((0, 10)), []) == {}


def test_true_segment_without_pixels_is_missed():
    ids = row((1, 10))
    check_labels(ids, segments(10, 20), "truth", ids, segments(10), "prediction")
    found = match_segments(ids, segments(10, 20), ids, segments(10))
    assert counts(found[10]) == (1, 1, 0, 0)
    assert counts(found[20]) == (0, 0, 0, 1)


@pytest.mark.parametrize(("first", "false_positives"), [(8, 1), (2, 0)])
def test_of_several_crowds_of_a_category_the_last_counts(first, false_positives):
    """As panopticapi has it: 10 pixels on crowds, but only those on the second one count."""
    truth = row((1, first), (2, 10 - first), (3, 10))
    prediction = row((1, 10), (0, 10))
    crowds = segments(10, 10, 20, crowd=(1, 2))
    found = match_segments(truth, crowds, prediction, segments(10))
    assert counts(found[10]) == (0, 0, false_positives, 0)


def test_a_listed_prediction_may_have_the_id_of_void():
    truth, ids = row((1, 10), (0, 2)), row((0, 12))
    predicted = [{"id": 0, "category_id": 10}]
    check_labels(truth, segments(10), "truth", ids, predicted, "prediction")
    found = match_segments(truth, segments(10), ids, predicted)
    assert counts(found[10]) == (1, 1, 0, 0)


def test_two_segments_of_a_category():
    """One matched with IoU 8/10, one missed, one invented."""
    truth = row((1, 10), (2, 10), (3, 10))
    prediction = row((1, 8), (0, 12), (2, 10))
    found = match_segments(truth, segments(10, 10, 30), prediction, segments(10, 10))
    assert counts(found[10]) == (0.8, 1, 1, 1)
    quality = found[10].quality()
    assert quality == pytest.approx({"PQ": 40, "SQ": 80, "RQ": 50})
    assert counts(found[30]) == (0, 0, 0, 1)
    assert found[30].quality() == {"PQ": 0, "SQ": 0, "RQ": 0}


def test_average_leaves_out_categories_that_do_not_occur():
    categories = [{"id": i, "isthing": thing} for i, thing in ((1, 1), (2, 1), (3, 0), (4, 0))]
    statistics = {
        1: CategoryStatistics(0.9, 1, 0, 0),
        2: CategoryStatistics(),
        3: CategoryStatistics(0.6, 1, 1, 1),
        4: CategoryStatistics(0, 0, 1, 0),
    }
    results = average_quality(statistics, categories)
    assert results == pytest.approx(
        {
            **{"PQ": 40, "SQ": 50, "RQ": 50},
            **{"PQ_th": 90, "SQ_th": 90, "RQ_th": 100},
            **{"PQ_st": 15, "SQ_st": 30, "RQ_st": 25},
        }
    )


def test_average_of_nothing_is_nan():
    results = average_quality({1: CategoryStatistics(1.0, 1, 0, 0)}, [{"id": 1, "isthing": 1}])
    assert results["PQ"] == results["PQ_th"] == 100
    assert math.isnan(results["PQ_st"])


def test_statistics_add_up():
    total = CategoryStatistics(0.5, 1, 2, 3)
    total.add(CategoryStatistics(0.75, 1, 10, 20))
    assert counts(total) == (1.25, 2, 12, 23)


def random_panoptic(rng: np.random.Generator, scenery: np.ndarray) -> np.ndarray:
    """(H, W, 2) categories and instances: ``scenery`` with some 12x12 blocks redrawn."""
    panoptic = scenery.copy()
    for _ in range(30):
        y, x = rng.integers(0, 52, 2)
        category = rng.integers(0, 4)
        panoptic[y : y + 12, x : x + 12] = category, rng.integers(0, 3) if category < 2 else 0
    return panoptic


def to_segments(panoptic: np.ndarray) -> tuple[np.ndarray, list[dict]]:
    ids = panoptic[..., 0] * 10 + panoptic[..., 1] + 1
    return ids, [{"id": int(i), "category_id": int(i - 1) // 10} for i in np.unique(ids)]


def test_torchmetrics_agrees_on_random_maps():
    """Things 0, 1 and stuff 2, 3, no void; torchmetrics adds up each class over the images."""
    rng = np.random.default_rng(0)
    truths, predictions = [], []
    for _ in range(10):
        scenery = np.zeros((64, 64, 2), dtype=np.int64)
        scenery[..., 0] = np.repeat(np.repeat(rng.integers(0, 4, (4, 4)), 16, 0), 16, 1)
        truths.append(random_panoptic(rng, scenery))
        predictions.append(random_panoptic(rng, truths[-1]))
    expected = torchmetrics_panoptic_quality(
        torch.from_numpy(np.stack(predictions)),
        torch.from_numpy(np.stack(truths)),
        things={0, 1},
        stuffs={2, 3},
        return_sq_and_rq=True,
        return_per_class=True,
    )
    totals = {category: CategoryStatistics() for category in range(4)}
    for truth, prediction in zip(truths, predictions, strict=True):
        found = match_segments(*to_segments(truth), *to_segments(prediction))
        for category, statistics in found.items():
            totals[category].add(statistics)
    ours = np.array([list(totals[category].quality().values()) for category in range(4)])
    assert all(min(counts(s)[1:]) > 0 for s in totals.values())
    np.testing.assert_allclose(ours / 100, expected.squeeze().numpy(), rtol=1e-6)
