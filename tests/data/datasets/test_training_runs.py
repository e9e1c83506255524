"""Data sets in whole runs: an imitation is made, trained on for two iterations and evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask

from ddep.config import load_config
from ddep.data.datasets.ade20k_full import prepare_ade20k_full
from ddep.data.datasets.ade20k_preparation import prepare_ade20k
from ddep.data.datasets.cityscapes import prepare_cityscapes
from ddep.data.image_reader import read_labels, read_panoptic
from ddep.engine import main
from ddep.evaluation import build_evaluator
from tests.data.datasets.imitation_trees import (
    write_ade20k,
    write_ade20k_full,
    write_cityscapes,
    write_mapillary_vistas,
)
from tests.engine.tiny_runs import arguments, metrics, one_thread, write_config

__all__ = ["one_thread"]

TASKS = ("SEMANTIC", "INSTANCE", "PANOPTIC")
# The number that each task's evaluator is asked for.
RESULTS = {
    "SEMANTIC": ("sem_seg", "mIoU"),
    "INSTANCE": ("segm", "AP"),
    "PANOPTIC": ("panoptic_seg", "PQ"),
}


def make_ade20k(root: Path) -> None:
    prepare_ade20k(write_ade20k(root), processes=1)


def make_ade20k_full(root: Path) -> None:
    prepare_ade20k_full(write_ade20k_full(root), processes=1)


def make_cityscapes(root: Path) -> None:
    prepare_cityscapes(write_cityscapes(root), processes=1)


@dataclass(frozen=True)
class Case:
    """A data set: its name without the split, the function that makes it, and what it is for."""

    name: str
    make: Callable[[Path], object]
    mapper: str
    evaluated: tuple[str, ...]
    classes: int
    ignore_label: int = 255


CASES = [
    Case("ade20k_sem_seg", make_ade20k, "semantic", ("SEMANTIC",), 150),
    Case("ade20k_instance", make_ade20k, "instance", ("INSTANCE",), 100),
    Case("ade20k_panoptic", make_ade20k, "panoptic", TASKS, 150),
    Case("ade20k_full_sem_seg", make_ade20k_full, "semantic", ("SEMANTIC",), 847, 65535),
    Case("cityscapes_fine_instance_seg", make_cityscapes, "instance", ("INSTANCE",), 8),
    Case("mapillary_vistas_sem_seg", write_mapillary_vistas, "semantic", ("SEMANTIC",), 65, 65),
    Case(
        "mapillary_vistas_panoptic",
        write_mapillary_vistas,
        "panoptic",
        ("SEMANTIC", "PANOPTIC"),
        65,
        65,
    ),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest, root: Path) -> Case:
    """A data set whose files are there."""
    request.param.make(root)
    return request.param


@pytest.fixture
def config(case: Case, tmp_path: Path) -> str:
    """A config that trains and evaluates on it."""
    return write_config(
        tmp_path,
        "finetune",
        MODEL__META_ARCHITECTURE="MaskFormer",
        MODEL__SEM_SEG_HEAD__NUM_CLASSES=case.classes,
        MODEL__SEM_SEG_HEAD__IGNORE_VALUE=case.ignore_label,
        # Mask2Former's configs for instances on ADE20K switch everything on.
        MODEL__MASK_FORMER__TEST={
            f"{task}_ON": task in case.evaluated or case.mapper == "instance" for task in TASKS
        },
        DATASETS__TRAIN=[f"{case.name}_train"],
        DATASETS__TEST=[f"{case.name}_val"],
        INPUT__DATASET_MAPPER_NAME=f"mask_former_{case.mapper}",
        INPUT__CROP={"ENABLED": True, "TYPE": "absolute", "SIZE": [32, 32]},
        INPUT__SIZE_DIVISIBILITY=32,
        SOLVER__MAX_ITER=2,
        OUTPUT_DIR=str(tmp_path / "output"),
    )


def test_train_and_evaluate(case: Case, config: str, tmp_path: Path) -> None:
    results = main(arguments("--config-file", config))
    assert results.keys() == {RESULTS[task][0] for task in case.evaluated}
    losses = [line["total_loss"] for line in metrics(tmp_path / "output") if "total_loss" in line]
    assert losses
    assert all(0 < loss < 1000 for loss in losses)


def test_the_truth_scores_100(case: Case, config: str) -> None:
    cfg = load_config(config)
    name = f"{case.name}_val"
    evaluator = build_evaluator(cfg, name)
    evaluator.reset()
    records = DatasetCatalog.get(name)
    assert len(records) == 2
    for record in records:
        output = {}
        if "SEMANTIC" in case.evaluated:
            labels = read_labels(record["sem_seg_file_name"])
            # Where there is no label, anything may be predicted.
            scores = np.arange(case.classes)[:, None, None] == np.where(
                labels == case.ignore_label, 3, labels
            )
            output["sem_seg"] = torch.from_numpy(scores.astype(np.float32))
        if "PANOPTIC" in case.evaluated:
            segments = torch.from_numpy(read_panoptic(record["pan_seg_file_name"]))
            output["panoptic_seg"] = segments, record["segments_info"]
        if "INSTANCE" in case.evaluated:
            output["instances"] = true_instances(case)
        evaluator.process([record], [output])
    results = evaluator.evaluate()
    for task in case.evaluated:
        group, metric = RESULTS[task]
        assert results[group][metric] == pytest.approx(100), task


def true_instances(case: Case) -> Instances:
    """The objects that every image of an imitation shows, in the classes of the set."""
    panoptic = case.name == "ade20k_panoptic"
    name = "ade20k_instance_val" if panoptic else f"{case.name}_val"
    annotations = [a for a in DatasetCatalog.get(name)[0]["annotations"] if not a["iscrowd"]]
    masks = np.stack([coco_mask.decode(a["segmentation"]) for a in annotations]).astype(bool)
    # Of the panoptic set, a bed's class is another.
    classes = [7 if panoptic else a["category_id"] for a in annotations]
    return Instances(
        masks.shape[1:],
        pred_masks=torch.from_numpy(masks),
        pred_boxes=Boxes(torch.zeros(len(masks), 4)),
        pred_classes=torch.tensor(classes),
        scores=torch.ones(len(masks)),
    )
