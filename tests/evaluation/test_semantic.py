"""Mean IoU against torchmetrics, and label images with mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from torchmetrics.functional.classification import multiclass_jaccard_index

from ddep.errors import UserError
from ddep.evaluation import CheckedSemSegEvaluator

NAME = "test_semantic_evaluator"
CLASSES = 5


def register(folder, labels: list[np.ndarray], **metadata) -> list[dict]:
    dicts = []
    for i, label in enumerate(labels):
        path = folder / f"{i}_labelTrainIds.png"
        Image.fromarray(label.astype(np.uint8)).save(path)
        dicts.append({"file_name": f"{i}.jpg", "sem_seg_file_name": str(path)})
    DatasetCatalog.register(NAME, lambda: dicts)
    names = [f"class {i}" for i in range(CLASSES)]
    MetadataCatalog.get(NAME).set(stuff_classes=names, ignore_label=255, **metadata)
    return dicts


@pytest.fixture(autouse=True)
def catalogue():
    yield
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


def scores(labels: np.ndarray) -> dict:
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), CLASSES)
    return {"sem_seg": one_hot.permute(2, 0, 1).float()}


def test_torchmetrics_agrees(tmp_path):
    """Random maps with pixels to ignore; the last class never occurs and is left out."""
    rng = np.random.default_rng(0)
    truths = [rng.integers(0, CLASSES - 1, (17, 23)) for _ in range(3)]
    predictions = [np.where(rng.random(t.shape) < 0.6, t, rng.integers(0, 4)) for t in truths]
    for truth in truths:
        truth[rng.random(truth.shape) < 0.2] = 255
    predictions[0][:5] = CLASSES - 2
    dicts = register(tmp_path, truths)
    evaluator = CheckedSemSegEvaluator(NAME, str(tmp_path / "out"))
    evaluator.reset()
    for image, prediction in zip(dicts, predictions, strict=True):
        evaluator.process([image], [scores(prediction)])
    results = evaluator.evaluate()["sem_seg"]
    expected = multiclass_jaccard_index(
        torch.from_numpy(np.stack(predictions)),
        torch.from_numpy(np.stack(truths)),
        num_classes=CLASSES,
        ignore_index=255,
        average=None,
    )
    for i in range(CLASSES - 1):
        assert results[f"IoU-class {i}"] == pytest.approx(100 * expected[i].item(), rel=1e-5)
    assert results["mIoU"] == pytest.approx(100 * expected[:-1].mean().item(), rel=1e-5)
    assert np.isnan(results[f"IoU-class {CLASSES - 1}"])


def test_means_over_some_of_the_classes(tmp_path):
    """By hand: IoU is 1/2 of class 0, 2/3 of 1, 1/3 of 2, 1/2 of 3; no label shows class 4.

    Class 2 has one pixel that is right, one that is predicted as 4 and one that is 3 in truth: what
    lies outside of a subset counts as an error.
    """
    truth = np.array([[0, 0, 1, 1, 2, 2, 3, 3, 255]])
    prediction = np.array([[0, 1, 1, 1, 2, 4, 2, 3, 2]])
    subsets = {
        "mIoU2": ["class 0", "class 2"],
        "mIoU*": ["class 1", "class 4"],
        "absent": ["class 4"],
    }
    dicts = register(tmp_path, [truth], class_subsets=subsets)
    evaluator = CheckedSemSegEvaluator(NAME)
    evaluator.reset()
    evaluator.process(dicts, [scores(prediction)])
    results = evaluator.evaluate()["sem_seg"]
    assert results["mIoU2"] == pytest.approx(100 * (1 / 2 + 1 / 3) / 2)
    assert results["mIoU*"] == pytest.approx(100 * 2 / 3)
    assert np.isnan(results["absent"])
    assert results["mIoU"] == pytest.approx(100 * (1 / 2 + 2 / 3 + 1 / 3 + 1 / 2) / 4)


def test_a_subset_of_unknown_classes(tmp_path):
    register(tmp_path, [np.zeros((4, 6))], class_subsets={"mIoU2": ["class 0", "road"]})
    message = (
        rf"data set {NAME}: class_subsets\['mIoU2'\] in its metadata has 'road', which is none"
    )
    with pytest.raises(UserError, match=message):
        CheckedSemSegEvaluator(NAME)


def test_results_do_not_depend_on_detectron2s_version(tmp_path):
    labels = np.arange(CLASSES)[None]
    dicts = register(tmp_path, [labels])
    evaluator = CheckedSemSegEvaluator(NAME)
    evaluator.reset()
    evaluator.process(dicts, [scores(labels)])
    per_class = [f"{kind}-class {i}" for kind in ("IoU", "ACC") for i in range(CLASSES)]
    names = {"mIoU", "fwIoU", "mACC", "pACC", *per_class}
    assert evaluator.evaluate() == {"sem_seg": dict.fromkeys(names, pytest.approx(100))}


def test_things_are_saved_too(tmp_path):
    """Cityscapes' panoptic metadata map stuff and things apart; predictions hold both."""
    labels = np.array([[0, 0, 1, 1]])
    dicts = register(
        tmp_path,
        [labels],
        stuff_dataset_id_to_contiguous_id={70: 0},
        thing_dataset_id_to_contiguous_id={33: 1},
    )
    evaluator = CheckedSemSegEvaluator(NAME, str(tmp_path / "out"))
    evaluator.reset()
    evaluator.process(dicts, [scores(labels)])
    assert evaluator.evaluate()["sem_seg"]["mIoU"] == 100
    saved = json.loads((tmp_path / "out" / "sem_seg_predictions.json").read_text())
    assert [entry["category_id"] for entry in saved] == [70, 33]


@pytest.mark.parametrize("label", [5, 17, 254])
def test_label_out_of_range(tmp_path, label):
    labels = np.zeros((4, 6), dtype=int)
    dicts = register(tmp_path, [np.where(np.eye(4, 6) > 0, label, 0)])
    evaluator = CheckedSemSegEvaluator(NAME)
    evaluator.reset()
    message = rf"0_labelTrainIds.png has the label {label}; expected 0 to 4, or 255 for pixels"
    with pytest.raises(UserError, match=message):
        evaluator.process(dicts, [scores(labels)])


def test_label_image_of_another_size(tmp_path):
    dicts = register(tmp_path, [np.zeros((6, 4))])
    evaluator = CheckedSemSegEvaluator(NAME)
    evaluator.reset()
    with pytest.raises(UserError, match="0_labelTrainIds.png is 4x6; expected 6x4, as the image"):
        evaluator.process(dicts, [scores(np.zeros((4, 6), dtype=int))])


def test_missing_label_image(tmp_path):
    dicts = register(tmp_path, [np.zeros((4, 6))])
    (tmp_path / "0_labelTrainIds.png").unlink()
    evaluator = CheckedSemSegEvaluator(NAME)
    evaluator.reset()
    with pytest.raises(UserError, match="0_labelTrainIds.png cannot be read: No such file"):
        evaluator.process(dicts, [scores(np.zeros((4, 6), dtype=int))])


def test_too_many_classes(tmp_path):
    dicts = register(tmp_path, [np.zeros((4, 6))])
    evaluator = CheckedSemSegEvaluator(NAME)
    evaluator.reset()
    with pytest.raises(UserError, match=f"NUM_CLASSES is 6, but {NAME} has 5 classes"):
        evaluator.process(dicts, [{"sem_seg": torch.zeros(6, 4, 6)}])
