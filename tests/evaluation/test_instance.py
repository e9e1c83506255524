"""Mask and box AP against pycocotools on results that the test writes itself."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ddep.errors import UserError
from ddep.evaluation import BoxAPEvaluator, MaskAPEvaluator

NAME = "test_instance_evaluator"
# Dataset id -> contiguous id. Stuff has 0, 1 and 3, and the orders of the two differ.
THINGS = {12: 4, 30: 2}


EVALUATORS = {"segm": MaskAPEvaluator, "bbox": BoxAPEvaluator}


def encode(mask: np.ndarray) -> dict:
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def box(mask: np.ndarray) -> list[float]:
    """[x, y, width, height] of a mask's box, moved a little, so that boxes are no masks' boxes."""
    x, y, width, height = mask_util.toBbox(encode(mask)).tolist()
    return [x + 0.5, y - 1.25, width + 1, height]


def corners(box: list[float]) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y + height]


def disc(y: int, x: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:64, :80]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


@pytest.fixture
def data(tmp_path):
    """Discs of two categories on three images, found with errors of place and size."""
    rng = np.random.default_rng(0)
    annotations, found = [], []
    for image_id in range(3):
        for y, x in ((16, 16), (16, 48), (48, 20), (48, 60)):
            category, radius = int(rng.choice(list(THINGS))), rng.uniform(7, 13)
            mask = disc(y, x, radius)
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": category,
                "segmentation": encode(mask),
                "area": int(mask.sum()),
                "bbox": mask_util.toBbox(encode(mask)).tolist(),
                "iscrowd": 0,
            }
            annotations.append(annotation)
            guess = disc(y + rng.integers(-2, 3), x + rng.integers(-2, 3), radius + rng.normal())
            wrong = rng.random() < 0.2
            label = category if not wrong else 42 - category
            found.append((image_id, label, float(rng.random()), guess))
    truth = {
        "images": [{"id": i, "height": 64, "width": 80} for i in range(3)],
        "categories": [{"id": i, "name": f"thing {i}"} for i in THINGS],
        "annotations": annotations,
    }
    json_file = tmp_path / "truth.json"
    json_file.write_text(json.dumps(truth))
    MetadataCatalog.get(NAME).set(
        json_file=str(json_file), thing_dataset_id_to_contiguous_id=THINGS
    )
    yield found, str(json_file)
    MetadataCatalog.pop(NAME)


def to_instances(found: list[tuple]) -> Instances:
    return Instances(
        (64, 80),
        scores=torch.tensor([score for _, _, score, _ in found]),
        pred_classes=torch.tensor([THINGS[label] for _, label, _, _ in found]),
        pred_masks=torch.from_numpy(np.stack([mask for *_, mask in found])),
        pred_boxes=Boxes(torch.tensor([corners(box(mask)) for *_, mask in found])),
    )


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_pycocotools_agrees(data, kind, tmp_path):
    found, json_file = data
    evaluator = EVALUATORS[kind](NAME, str(tmp_path / "out"))
    evaluator.reset()
    for image_id in range(3):
        instances = to_instances([f for f in found if f[0] == image_id])
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    results = evaluator.evaluate()[kind]

    what = {"segm": ("segmentation", encode), "bbox": ("bbox", box)}
    name, of = what[kind]
    entries = [
        {"image_id": i, "category_id": label, "score": score, name: of(mask)}
        for i, label, score, mask in found
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(json_file)
        reference = COCOeval(coco, coco.loadRes(entries), kind)
        reference.evaluate()
        reference.accumulate()
        reference.summarize()
    assert 10 < results["AP"] < 90
    names = ("AP", "AP50", "AP75")
    assert [results[k] for k in names] == pytest.approx(100 * reference.stats[:3], rel=1e-4)
    assert results["AP"] < results["AP50"]
    for place, category in enumerate(sorted(THINGS)):
        precision = reference.eval["precision"][:, :, place, 0, -1]
        assert results[f"AP-thing {category}"] == pytest.approx(100 * precision.mean(), rel=1e-4)


def test_inputs_are_left_alone(data, tmp_path):
    found, _ = data
    instances = to_instances(found[:4])
    before = instances.pred_classes.clone()
    evaluator = MaskAPEvaluator(NAME, str(tmp_path / "out"))
    evaluator.reset()
    evaluator.process([{"image_id": 0}], [{"instances": instances}])
    assert torch.equal(instances.pred_classes, before)


def test_no_instances(data, tmp_path):
    evaluator = MaskAPEvaluator(NAME, str(tmp_path / "out"))
    evaluator.reset()
    empty = to_instances(data[0])[torch.zeros(12, dtype=torch.bool)]
    evaluator.process([{"image_id": 0}], [{"instances": empty}])
    assert np.isnan(evaluator.evaluate()["segm"]["AP"])


def test_masks_and_boxes_do_not_overwrite_each_others_files(data, tmp_path):
    for evaluator in (kind(NAME, str(tmp_path)) for kind in EVALUATORS.values()):
        evaluator.reset()
        outputs = to_instances(data[0][:4])
        evaluator.process([{"image_id": 0}], [{"instances": outputs}])
        assert outputs.has("pred_masks")
        evaluator.evaluate()
    files = (tmp_path / name for name in ("", "bbox"))
    found = [json.loads((f / "coco_instances_results.json").read_text()) for f in files]
    assert [len(entries) for entries in found] == [4, 4]
    assert ["segmentation" in entries[0] for entries in found] == [True, False]


def test_class_that_the_data_set_lacks(data, tmp_path):
    instances = to_instances(data[0])
    instances.pred_classes[3] = 3
    evaluator = MaskAPEvaluator(NAME, str(tmp_path / "out"))
    evaluator.reset()
    with pytest.raises(UserError, match=f"thing class 3, which {NAME} does not have; MODEL.SEM"):
        evaluator.process([{"image_id": 0}], [{"instances": instances}])
