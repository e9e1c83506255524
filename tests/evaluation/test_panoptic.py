"""The panoptic evaluator: files in, files out, ids, mistakes in the ground truth."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from PIL import Image

from ddep.errors import UserError
from ddep.evaluation import PanopticQualityEvaluator

NAME = "test_panoptic_evaluator"
# Ids above 255 and 65535, so that a swapped or lost colour channel shows.
ROAD, CAR, FAR = 7, 70_001, 300
CATEGORIES = [
    {"id": 21, "name": "road", "isthing": 0},
    {"id": 45, "name": "car", "isthing": 1},
    {"id": 90, "name": "sky", "isthing": 0},
]
TRUTH = np.array([[ROAD] * 10 + [CAR] * 10, [0] * 2 + [FAR] * 18])
SEGMENTS = [
    {"id": ROAD, "category_id": 21, "iscrowd": 0},
    {"id": CAR, "category_id": 45, "iscrowd": 0},
    {"id": FAR, "category_id": 45, "iscrowd": 0},
]


def write_png(path, ids) -> None:
    """Ids as colours: red + 256 green + 65536 blue."""
    colours = np.zeros((*np.shape(ids), 3), dtype=np.uint8)
    colours[..., 0], colours[..., 1], colours[..., 2] = ids % 256, ids // 256 % 256, ids // 65536
    Image.fromarray(colours).save(path)


@pytest.fixture
def truth(tmp_path):
    """Two images, the second perfectly void but for a road; yields the JSON's content."""
    (tmp_path / "png").mkdir()
    write_png(tmp_path / "png" / "one.png", TRUTH)
    write_png(tmp_path / "png" / "two.png", np.full((2, 20), ROAD))
    content = {
        "categories": CATEGORIES,
        "annotations": [
            {"image_id": 1, "file_name": "one.png", "segments_info": SEGMENTS},
            {"image_id": "b", "file_name": "two.png", "segments_info": SEGMENTS[:1]},
        ],
    }
    json_file = tmp_path / "truth.json"
    json_file.write_text(json.dumps(content))
    MetadataCatalog.get(NAME).set(
        panoptic_json=str(json_file),
        panoptic_root=str(tmp_path / "png"),
        label_divisor=1000,
        thing_dataset_id_to_contiguous_id={45: 1},
        stuff_dataset_id_to_contiguous_id={21: 0, 45: 1, 90: 2},
    )
    yield content
    MetadataCatalog.pop(NAME)


def prediction(ids: np.ndarray, *segments: tuple[int, int, bool]) -> dict:
    info = [{"id": i, "category_id": c, "isthing": t} for i, c, t in segments]
    return {"panoptic_seg": (torch.tensor(ids, dtype=torch.int32), info)}


# Road right; the car is 8 of 10 pixels and 4 pixels on the far car, which is missed.
FIRST = prediction(
    np.array([[1] * 10 + [2] * 8 + [0] * 2, [0] * 2 + [2] * 4 + [0] * 14]),
    (1, 0, False),
    (2, 1, True),
)
SECOND = prediction(np.ones((2, 20), dtype=int), (1, 0, False))


def test_results(truth, tmp_path, caplog):
    evaluator = PanopticQualityEvaluator(NAME, str(tmp_path / "out"))
    evaluator.reset()
    # Ids as numbers or strings, in any order, several at once.
    evaluator.process([{"image_id": "b"}, {"image_id": 1}], [SECOND, FIRST])
    with caplog.at_level(logging.INFO, "ddep"):
        results = evaluator.evaluate()
    iou = 8 / 14
    things = {"PQ_th": iou / 1.5, "SQ_th": iou, "RQ_th": 1 / 1.5}
    everything = {"PQ": (1 + iou / 1.5) / 2, "SQ": (1 + iou) / 2, "RQ": (1 + 1 / 1.5) / 2}
    classes = {"PQ-road": 1, "PQ-car": iou / 1.5}
    expected = {**everything, **things, "PQ_st": 1, "SQ_st": 1, "RQ_st": 1, **classes}
    assert results == {"panoptic_seg": pytest.approx({k: 100 * v for k, v in expected.items()})}
    assert "| car " in caplog.text
    assert f"{100 * iou:.3f}" in caplog.text
    assert "sky" not in caplog.text


def test_predictions_are_saved_in_the_data_sets_ids(truth, tmp_path):
    evaluator = PanopticQualityEvaluator(NAME, str(tmp_path / "out"))
    evaluator.process([{"image_id": 1}, {"image_id": "b"}], [FIRST, SECOND])
    evaluator.evaluate()
    saved = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert saved["annotations"][0] == {
        "image_id": 1,
        "file_name": "one.png",
        "segments_info": [{"id": 1, "category_id": 21}, {"id": 2, "category_id": 45}],
    }
    png = np.asarray(Image.open(tmp_path / "out" / "panoptic_predictions" / "one.png"))
    np.testing.assert_array_equal(png @ [1, 256, 65536], FIRST["panoptic_seg"][0])


def test_nothing_is_saved_unasked(truth, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    evaluator = PanopticQualityEvaluator(NAME)
    evaluator.process([{"image_id": 1}, {"image_id": "b"}], [FIRST, SECOND])
    assert evaluator.evaluate()["panoptic_seg"]["PQ_st"] == 100
    assert sorted(tmp_path.rglob("*")) == before


def test_ids_without_segments_are_decoded(truth):
    """category * 1000 + instance, -1 is void; category 0, instance 0 is no void."""
    encoded = np.where(TRUTH == ROAD, 0, np.where(TRUTH == CAR, 1001, 1002))
    encoded[TRUTH == 0] = -1
    outputs = [
        {"panoptic_seg": (torch.tensor(encoded), None)},
        {"panoptic_seg": (torch.zeros(2, 20, dtype=torch.int64), None)},
    ]
    evaluator = PanopticQualityEvaluator(NAME)
    evaluator.process([{"image_id": 1}, {"image_id": "b"}], outputs)
    results = evaluator.evaluate()["panoptic_seg"]
    assert set(results.values()) == {100}
    assert torch.equal(outputs[0]["panoptic_seg"][0], torch.tensor(encoded))


def test_processes_add_up(truth, monkeypatch):
    alone, first, second = (PanopticQualityEvaluator(NAME) for _ in range(3))
    alone.process([{"image_id": 1}, {"image_id": "b"}], [FIRST, SECOND])
    first.process([{"image_id": 1}], [FIRST])
    second.process([{"image_id": "b"}], [SECOND])
    expected = alone.evaluate()
    other = (second._statistics, second._predictions)
    monkeypatch.setattr(comm, "gather", lambda own: [own, other])
    assert first.evaluate() == expected
    monkeypatch.setattr(comm, "gather", lambda _: [])
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert second.evaluate() is None


def test_reset_forgets(truth):
    evaluator = PanopticQualityEvaluator(NAME)
    evaluator.process([{"image_id": 1}], [FIRST])
    evaluator.reset()
    evaluator.process([{"image_id": "b"}], [SECOND])
    with pytest.raises(UserError, match="1 of the 2 images .* no prediction, the first is image 1"):
        evaluator.evaluate()


def test_unknown_image(truth):
    with pytest.raises(UserError, match=r"truth.json has no annotation of image 5$"):
        PanopticQualityEvaluator(NAME).process([{"image_id": 5}], [FIRST])


def test_sizes_that_differ(truth):
    small = prediction(np.ones((2, 19), dtype=int), (1, 0, False))
    with pytest.raises(UserError, match=r"for image b is 19x2; expected 20x2, as .*two.png$"):
        PanopticQualityEvaluator(NAME).process([{"image_id": "b"}], [small])


def test_class_that_the_data_set_lacks(truth):
    wrong = prediction(np.ones((2, 20), dtype=int), (1, 3, False))
    with pytest.raises(UserError, match=r"stuff class 3, .*MODEL.SEM_SEG_HEAD.NUM_CLASSES"):
        PanopticQualityEvaluator(NAME).process([{"image_id": "b"}], [wrong])


def test_png_with_a_segment_that_the_json_lacks(truth, tmp_path):
    write_png(tmp_path / "png" / "two.png", np.full((2, 20), CAR))
    with pytest.raises(UserError, match=rf"two.png has pixels of segment {CAR}, which its segm"):
        PanopticQualityEvaluator(NAME).process([{"image_id": "b"}], [SECOND])


def test_prediction_that_disagrees_with_its_segments(truth):
    wrong = prediction(np.ones((2, 20), dtype=int), (2, 0, False))
    with pytest.raises(UserError, match="prediction for image b has pixels of segment 1, which"):
        PanopticQualityEvaluator(NAME).process([{"image_id": "b"}], [wrong])


def test_missing_label_map(truth, tmp_path):
    (tmp_path / "png" / "two.png").unlink()
    with pytest.raises(UserError, match="label image .*two.png cannot be read: No such file"):
        PanopticQualityEvaluator(NAME).process([{"image_id": "b"}], [SECOND])


def test_missing_json(truth, tmp_path):
    (tmp_path / "truth.json").unlink()
    with pytest.raises(UserError, match=r"truth.json, the panoptic ground truth of .* not exist"):
        PanopticQualityEvaluator(NAME)


def test_json_without_annotations(truth, tmp_path):
    (tmp_path / "truth.json").write_text(json.dumps({"categories": CATEGORIES, "images": []}))
    with pytest.raises(UserError, match=rf"truth.json has no annotations to evaluate {NAME} with"):
        PanopticQualityEvaluator(NAME)
