"""The evaluator of video instance segmentation: results, files for the server, mistakes."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddep.data.record import Record
from ddep.errors import UserError
from ddep.evaluation import MEASURES, VideoAPEvaluator
from tests.evaluation.small_videos import (
    LENGTH,
    annotation,
    encode,
    registered,
    right_output,
    video,
)

NAME = "test_video_evaluator"


@pytest.fixture
def records() -> Iterator[list[Record]]:
    records = [video(1), video(3)]
    with registered(NAME, lambda: records):
        yield records


def test_results_and_files(records: list[Record], tmp_path: Path) -> None:
    evaluator = VideoAPEvaluator(NAME, str(tmp_path))
    evaluator.process([{"video_id": 3}], [right_output()])
    evaluator.process([{"video_id": 1}], [right_output()])
    results = evaluator.evaluate()["video_segm"]
    assert results["AP"] == results["APs"] == results["AP-left"] == pytest.approx(100)
    assert tuple(results)[: len(MEASURES["video_segm"].metrics)] == MEASURES["video_segm"].metrics
    written = json.loads((tmp_path / "video_segm/results.json").read_text())
    assert [(e["video_id"], e["category_id"], e["score"]) for e in written] == [
        (1, 4, 0.9),
        (1, 2, 0.8),
        (3, 4, 0.9),
        (3, 2, 0.8),
    ]
    assert written[1]["segmentations"] == right_output()["pred_masks"][1]
    with zipfile.ZipFile(tmp_path / "video_segm/results.zip") as archive:
        assert archive.namelist() == ["results.json"]
        assert json.loads(archive.read("results.json")) == written


def test_videos_that_were_not_predicted_count_as_missed(
    records: list[Record], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluator = VideoAPEvaluator(NAME, str(tmp_path))
    evaluator.process([{"video_id": 1}], [right_output()])
    with caplog.at_level(logging.WARNING):
        results = evaluator.evaluate()["video_segm"]
    assert results["AP"] == pytest.approx(100 * 51 / 101)
    assert "1 of the 2 videos of test_video_evaluator were not predicted" in caplog.text
    evaluator.reset()
    assert evaluator.evaluate()["video_segm"]["AP"] == 0


def test_without_annotations_only_files_are_written(
    records: list[Record], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for record in records:
        del record["annotations"]
    MEASURES["video_segm"].check(NAME)
    evaluator = VideoAPEvaluator(NAME, str(tmp_path))
    evaluator.process([{"video_id": 1}], [right_output()])
    with caplog.at_level(logging.INFO):
        assert evaluator.evaluate() == {}
    assert "has no annotations: nothing is measured; upload" in caplog.text
    assert len(json.loads((tmp_path / "video_segm/results.json").read_text())) == 2


def test_mistakes_of_the_model(records: list[Record], tmp_path: Path) -> None:
    evaluator = VideoAPEvaluator(NAME, str(tmp_path))
    with pytest.raises(UserError, match=f"predicts class 2, which {NAME} does not have"):
        evaluator.process([{"video_id": 1}], [right_output() | {"pred_labels": [0, 2]}])
    records[0] |= {"height": 40, "width": 60}
    with pytest.raises(UserError, match=r"video1/0\.png are 30x20; expected 60x40"):
        evaluator.process([{"video_id": 1}], [right_output()])


def test_mistakes_of_the_annotations(records: list[Record]) -> None:
    check = MEASURES["video_segm"].check
    check(NAME)
    records[0]["annotations"][2].append(annotation(5, 0, encode(0, 0, 5, 5)))
    with pytest.raises(UserError, match=r"video1/2\.png has track 5 twice"):
        check(NAME)
    records[0]["annotations"][2] = [annotation(5, 1, encode(0, 0, 5, 5))]
    with pytest.raises(UserError, match=r"track 5 of the video of video1/0\.png has the classes"):
        check(NAME)
    records[0] = video(1) | {"width": 50}
    with pytest.raises(UserError, match=r"track 5 in video1/0\.png is 30x20; expected 50x20"):
        check(NAME)
    records[0] = video(3)
    with pytest.raises(UserError, match="two videos of id 3"):
        check(NAME)


def test_polygons_and_long_run_lengths(records: list[Record], tmp_path: Path) -> None:
    """All three of COCO's ways to write a mask mean the same."""
    first, second = records[0]["annotations"][:2]
    first[0]["segmentation"] = [[0, 0, 10, 0, 10, 10, 0, 10]]
    second[0]["segmentation"] = {"size": [20, 30], "counts": [0, *[10, 10] * 9, 10, 410]}
    evaluator = VideoAPEvaluator(NAME, str(tmp_path))
    evaluator.process([{"video_id": n} for n in (1, 3)], [right_output(), right_output()])
    assert evaluator.evaluate()["video_segm"]["AP"] == pytest.approx(100)
    assert len(records[0]["annotations"]) == LENGTH
