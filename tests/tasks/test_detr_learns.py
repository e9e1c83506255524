"""A small DETR learns where things are, far better than any constant prediction."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.cluster.vq import kmeans2

from ddep.engine import main
from tests.engine.tiny_runs import arguments, detr_config, one_thread, shapes_root

pytestmark = pytest.mark.slow

__all__ = ["one_thread"]

IMAGES, SIZE = 16, 96
KEYS = {
    "MODEL.BACKBONE.NAME": "TimmBackbone",
    "MODEL.DDEP.TIMM.NAME": "test_resnet",
    "MODEL.DETR.HIDDEN_DIM": 64,
    "MODEL.DETR.DIM_FEEDFORWARD": 128,
    "MODEL.DETR.DROPOUT": 0.0,
    "MODEL.DETR.NUM_OBJECT_QUERIES": 8,
    "DATASETS.TEST": "('shapes_instance_train',)",
    "INPUT.MIN_SIZE_TRAIN": "(128,)",
    "INPUT.MIN_SIZE_TEST": 128,
    "INPUT.CROP.ENABLED": False,
    "INPUT.RANDOM_FLIP": "none",
    "SOLVER.IMS_PER_BATCH": 8,
    "SOLVER.MAX_ITER": 350,
    "SOLVER.BACKBONE_MULTIPLIER": 1.0,
}


def box_ap(truth: COCO, boxes: list[dict[str, object]]) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(boxes), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[0]


def constant_ap(truth: COCO, per_class: int) -> float:
    """The AP of the same boxes in every image: the centres of clusters of each class's boxes."""
    predictions = []
    for category in truth.getCatIds():
        boxes = np.array([a["bbox"] for a in truth.loadAnns(truth.getAnnIds(catIds=category))])
        centres, nearest = kmeans2(boxes, per_class, minit="++", seed=0)
        for box, count in zip(centres, np.bincount(nearest, minlength=per_class), strict=True):
            predictions += [
                {"image_id": i, "category_id": category, "bbox": box.tolist(), "score": count / 100}
                for i in truth.getImgIds()
            ]
    return box_ap(truth, predictions)


def test_box_ap_is_far_above_that_of_a_constant_prediction(tmp_path: Path) -> None:
    """On the images that it learns: a minute is too short to learn what shapes look like."""
    with shapes_root(tmp_path, train=IMAGES, size=SIZE):
        words = [word for pair in KEYS.items() for word in pair]
        found = main(arguments("--config-file", detr_config(tmp_path), *words))["bbox"]["AP"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "datasets" / "shapes" / "instances_train.json"))
    constant = max(constant_ap(truth, per_class) for per_class in (1, 2, 4, 8))
    written = tmp_path / "detr" / "inference" / "bbox" / "coco_instances_results.json"
    assert box_ap(truth, json.loads(written.read_text())) == pytest.approx(found)
    assert 0 < constant < 15
    assert found > constant + 25
