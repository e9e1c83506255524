from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from PIL import Image

from ddep.errors import UserError
from ddep.evaluation import CityscapesAPEvaluator

NAME = "test_cityscapes_instance"
IMAGE = {"file_name": "/elsewhere/leftImg8bit/val/bonn/bonn_1_2_leftImg8bit.png"}


@pytest.fixture
def evaluator(tmp_path: Path) -> Iterator[CityscapesAPEvaluator]:
    """Two cars, side by side; contiguous ids are those of the panoptic set."""
    path = tmp_path / "val" / "bonn" / "bonn_1_2_gtFine_instanceIds.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.repeat(np.array([26001, 26002], np.uint16), 10)[None].repeat(20, 0)).save(
        path
    )
    MetadataCatalog.get(NAME).set(
        gt_dir=str(tmp_path / "val"), thing_dataset_id_to_contiguous_id={24: 11, 26: 13}
    )
    yield CityscapesAPEvaluator(NAME)
    MetadataCatalog.pop(NAME)


def predict(classes: list[int], columns: list[tuple[int, int]], height: int = 20) -> dict[str, Any]:
    masks = torch.zeros(len(columns), height, 20)
    for mask, (left, right) in zip(masks, columns, strict=True):
        mask[:, left:right] = 1
    scores = torch.linspace(0.9, 0.5, len(columns))
    instances = Instances(
        (height, 20), pred_classes=torch.tensor(classes), scores=scores, pred_masks=masks
    )
    return {"instances": instances}


def test_results(evaluator: CityscapesAPEvaluator) -> None:
    evaluator.process([IMAGE], [predict([13, 13, 11], [(0, 10), (10, 16), (0, 10)])])
    results = evaluator.evaluate()["segm"]
    assert results["AP-car"] == results["AP"]
    assert results["AP50"] == pytest.approx(100)
    assert np.isnan(results["AP-person"])
    # The second car has an IoU of 0.6, above two thresholds. At the others, the first car alone
    # is found, with precision 1.
    assert results["AP"] == pytest.approx((2 * 100 + 8 * 50) / 10)
    evaluator.reset()
    assert np.isnan(evaluator.evaluate()["segm"]["AP"])


def test_mistakes(evaluator: CityscapesAPEvaluator, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="thing class 5, which test_cityscapes_instance does not"):
        evaluator.process([IMAGE], [predict([5], [(0, 10)])])
    with pytest.raises(UserError, match=r"instanceIds\.png is 20x20; expected 20x30, as the image"):
        evaluator.process([IMAGE], [predict([13], [(0, 10)], height=30)])
    with pytest.raises(UserError, match=r"val/ulm/ulm_1_2_gtFine_instanceIds\.png cannot be read"):
        evaluator.process([{"file_name": "val/ulm/ulm_1_2_leftImg8bit.png"}], [predict([], [])])
