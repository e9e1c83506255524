"""The evaluator of tracking: results, files, thresholds, classes, videos that are missing."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog

from ddep.data.record import Record
from ddep.errors import UserError
from ddep.evaluation import MEASURES, TrackingEvaluator
from tests.evaluation.small_videos import annotation, encode, registered, right_output, video

NAME = "test_tracking_evaluator"


@pytest.fixture
def records() -> Iterator[list[Record]]:
    records = [video(1), video(3)]
    with registered(NAME, lambda: records):
        yield records


def measure(folder: Path, outputs: dict[int, dict]) -> dict[str, float]:
    evaluator = TrackingEvaluator(NAME, str(folder))
    for number, output in outputs.items():
        evaluator.process([{"video_id": number}], [output])
    return evaluator.evaluate()["tracking"]


def test_results_and_files(records: list[Record], tmp_path: Path) -> None:
    MEASURES["tracking"].check(NAME)
    results = measure(tmp_path, {3: right_output(), 1: right_output()})
    assert results["HOTA"] == results["MOTA"] == results["HOTA-left"] == pytest.approx(100)
    assert (results["FN"], results["MT"]) == (0, 4)
    assert tuple(results)[: len(MEASURES["tracking"].metrics)] == MEASURES["tracking"].metrics
    left, right = (encode(*box)["counts"] for box in ((0, 0, 10, 10), (5, 20, 10, 10)))
    assert (tmp_path / "tracking/3.txt").read_text().splitlines() == [
        f"1 1 4 20 30 {left}",
        f"1 2 2 20 30 {right}",
        f"2 1 4 20 30 {left}",
        f"2 2 2 20 30 {right}",
        f"3 1 4 20 30 {left}",
    ]


def test_tracks_below_the_threshold_are_left_out(records: list[Record], tmp_path: Path) -> None:
    uncertain = right_output() | {"pred_scores": [0.4, 0.39]}
    results = measure(tmp_path, {1: right_output(), 3: uncertain})
    # Two of the four frames of "right" are missed: DetA is a half, the rest is right.
    assert results["HOTA-right"] == pytest.approx(100 * math.sqrt(0.5))
    assert results["HOTA"] == pytest.approx(50 + 50 * math.sqrt(0.5))
    assert (results["FN"], results["ML"], results["MOTA"]) == (2, 1, 75)


def test_classes_are_compared_apart(records: list[Record], tmp_path: Path) -> None:
    wrong = right_output() | {"pred_labels": [0, 0]}
    results = measure(tmp_path, {1: wrong, 3: right_output()})
    assert (results["FP"], results["FN"]) == (2, 2)
    for record in records:
        record["annotations"] = [
            [a for a in frame if a["id"] == 5] for frame in record["annotations"]
        ]
    left_only = {key: value[:1] for key, value in right_output().items()}
    results = measure(tmp_path, {1: left_only, 3: left_only})
    assert (results["HOTA"], results["HOTA-left"]) == pytest.approx((100, 100))
    assert math.isnan(results["HOTA-right"])


def test_videos_that_were_not_predicted_count_as_missed(
    records: list[Record], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        results = measure(tmp_path, {1: right_output()})
    assert (results["FN"], results["IDR"]) == (5, 50)
    assert "1 of the 2 videos of test_tracking_evaluator were not predicted" in caplog.text


def test_boxes(records: list[Record], tmp_path: Path) -> None:
    """Without masks in the data set boxes count: the model's own, or else those of its masks."""
    MetadataCatalog.get(NAME).boxes_only = True
    for record in records:
        record["video_name"] = f"MOT17-0{record['video_id']}"
        for frame in record["annotations"]:
            for box in frame:
                del box["segmentation"]
    MEASURES["tracking"].check(NAME)
    assert measure(tmp_path, dict.fromkeys((1, 3), right_output()))["HOTA"] == pytest.approx(100)
    lines = (tmp_path / "tracking/MOT17-03.txt").read_text().splitlines()
    assert lines[1] == "1,2,21.00,6.00,10.00,10.00,0.8000,-1,-1,-1"
    boxes = [[[0, 0, 10, 8]] * 3, [[20, 5, 10, 8]] * 2 + [None]]
    output = right_output() | {"pred_boxes": boxes}
    del output["pred_masks"]
    results = measure(tmp_path, dict.fromkeys((1, 3), output))
    assert (results["MOTP"], results["MOTA"], results["FP"]) == pytest.approx((80, 100, 0))


def test_without_annotations_only_files_are_written(
    records: list[Record], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for record in records:
        del record["annotations"]
    evaluator = TrackingEvaluator(NAME, str(tmp_path))
    evaluator.process([{"video_id": 1}], [right_output()])
    with caplog.at_level(logging.INFO):
        assert evaluator.evaluate() == {}
    assert "has no annotations: nothing is measured" in caplog.text
    assert len((tmp_path / "tracking/1.txt").read_text().splitlines()) == 5


def test_mistakes(records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"predicts class 7, which {NAME} does not have"):
        measure(tmp_path, {1: right_output() | {"pred_labels": [7, 1]}})
    records[1]["annotations"][0].append(annotation(8, 1, encode(0, 0, 5, 5)))
    with pytest.raises(UserError, match=r"video3/0\.png has track 8 twice"):
        MEASURES["tracking"].check(NAME)
