"""Data sets in whole runs: an imitation is made, trained on for two iterations and evaluated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.data.datasets.ade20k_full import prepare_ade20k_full
from ddep.data.datasets.ade20k_preparation import prepare_ade20k
from ddep.data.datasets.camvid import prepare_camvid
from ddep.data.datasets.cityscapes import prepare_cityscapes
from ddep.data.datasets.cityscapes_classes import CLASS_SUBSETS
from ddep.data.datasets.coco import prepare_coco
from ddep.data.datasets.gta5 import prepare_gta5
from ddep.data.datasets.mapillary_vistas import prepare_mapillary_vistas
from ddep.data.datasets.pascal_context import prepare_pascal_context
from ddep.data.datasets.penn_fudan import prepare_penn_fudan
from ddep.data.datasets.shapes import generate_shapes
from ddep.data.datasets.synthia import prepare_synthia
from ddep.engine import main
from ddep.tasks import load_config, task_of
from tests.data.datasets.imitation_photographs import (
    write_coco,
    write_pascal_context,
    write_penn_fudan,
)
from tests.data.datasets.imitation_streets import (
    write_bdd100k,
    write_camvid,
    write_gta5,
    write_synthia,
)
from tests.data.datasets.imitation_trees import (
    write_ade20k,
    write_ade20k_full,
    write_cityscapes,
    write_mapillary_vistas,
)
from tests.data.datasets.true_outputs import (
    INSTANCE,
    PANOPTIC,
    RESULTS,
    SEMANTIC,
    TASKS,
    true_output,
)
from tests.engine.tiny_runs import arguments, metrics, one_thread, write_config

pytestmark = pytest.mark.slow

__all__ = ["one_thread"]

# How each data set is made below a root.
MAKERS: dict[str, Callable[[Path], object]] = {
    "coco": lambda root: prepare_coco(write_coco(root), 1),
    "ade20k": lambda root: prepare_ade20k(write_ade20k(root), 1),
    "ade20k_full": lambda root: prepare_ade20k_full(write_ade20k_full(root), 1),
    "cityscapes": lambda root: prepare_cityscapes(write_cityscapes(root), 1),
    "mapillary_vistas": lambda root: prepare_mapillary_vistas(write_mapillary_vistas(root), 1),
    "pascal_context": lambda root: prepare_pascal_context(write_pascal_context(root), 1),
    "gta5": lambda root: prepare_gta5(write_gta5(root), 1),
    "synthia": lambda root: prepare_synthia(write_synthia(root), 1),
    "bdd100k": write_bdd100k,
    "camvid": lambda root: prepare_camvid(write_camvid(root / "source"), root / "camvid"),
    "penn_fudan": lambda root: prepare_penn_fudan(
        write_penn_fudan(root / "source"), root / "penn_fudan"
    ),
    "shapes": lambda root: generate_shapes(root / "shapes", train=1, val=2, unlabelled=1, size=32),
}


@dataclass(frozen=True)
class Case:
    """A data set and what it is for; ``{}`` in its name stands for the split."""

    name: str
    maker: str
    evaluated: tuple[str, ...]
    classes: int
    ignore_label: int = 255
    splits: tuple[str, str] = ("train", "val")

    @property
    def train(self) -> str:
        return self.name.format(self.splits[0])

    @property
    def val(self) -> str:
        return self.name.format(self.splits[1])

    @property
    def mapper(self) -> str:
        return self.evaluated[-1].lower()


CASES = [
    Case("coco_2017_{}", "coco", (INSTANCE,), 80),
    Case("coco_2017_{}_panoptic", "coco", (INSTANCE, PANOPTIC), 133),
    Case("coco_2017_{}_panoptic_with_sem_seg", "coco", TASKS, 133),
    Case("ade20k_sem_seg_{}", "ade20k", (SEMANTIC,), 150),
    Case("ade20k_instance_{}", "ade20k", (INSTANCE,), 100),
    Case("ade20k_panoptic_{}", "ade20k", TASKS, 150),
    Case("ade20k_full_sem_seg_{}", "ade20k_full", (SEMANTIC,), 847, 65535),
    Case("cityscapes_fine_sem_seg_{}", "cityscapes", (SEMANTIC,), 19),
    Case("cityscapes_fine_instance_seg_{}", "cityscapes", (INSTANCE,), 8),
    Case("cityscapes_fine_panoptic_{}", "cityscapes", TASKS, 19),
    Case("mapillary_vistas_sem_seg_{}", "mapillary_vistas", (SEMANTIC,), 65, 65),
    Case("mapillary_vistas_panoptic_{}", "mapillary_vistas", (SEMANTIC, PANOPTIC), 65, 65),
    Case("mapillary_vistas_19_sem_seg_{}", "mapillary_vistas", (SEMANTIC,), 19),
    Case("pascal_context_59_sem_seg_{}", "pascal_context", (SEMANTIC,), 59),
    Case("pascal_context_60_sem_seg_{}", "pascal_context", (SEMANTIC,), 60),
    Case("gta5_sem_seg_{}", "gta5", (SEMANTIC,), 19),
    Case("gta5_sem_seg_{}", "gta5", (SEMANTIC,), 19, splits=("all", "val")),
    Case("synthia_sem_seg_{}", "synthia", (SEMANTIC,), 19, splits=("all", "all")),
    Case("bdd100k_sem_seg_{}", "bdd100k", (SEMANTIC,), 19),
    Case("camvid_sem_seg_{}", "camvid", (SEMANTIC,), 11),
    Case("camvid_panoptic_{}", "camvid", (SEMANTIC, PANOPTIC), 11, splits=("train", "test")),
    Case("penn_fudan_instance_{}", "penn_fudan", (INSTANCE,), 1),
    Case("penn_fudan_panoptic_{}", "penn_fudan", (SEMANTIC, PANOPTIC), 2),
    Case("shapes_panoptic_{}", "shapes", (SEMANTIC, PANOPTIC), 8),
]


@pytest.fixture(params=CASES, ids=lambda case: case.train)
def case(request: pytest.FixtureRequest, everywhere: Path) -> Case:
    """A data set whose files are there."""
    MAKERS[request.param.maker](everywhere)
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
        DATASETS__TRAIN=[case.train],
        DATASETS__TEST=[case.val],
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
    evaluator = task_of(cfg).build_evaluator(cfg, case.val, cfg.OUTPUT_DIR)
    evaluator.reset()
    records = DatasetCatalog.get(case.val)
    assert len(records) == 2
    things = MetadataCatalog.get(case.val).get("thing_dataset_id_to_contiguous_id", {}).values()
    for record in records:
        output = true_output(record, case.evaluated, case.classes, case.ignore_label, things)
        evaluator.process([record], [output])
    results = evaluator.evaluate()
    for task in case.evaluated:
        group, metric = RESULTS[task]
        assert results[group][metric] == pytest.approx(100), task
    if case.classes == 19 and case.evaluated == (SEMANTIC,):
        assert all(results["sem_seg"][metric] == pytest.approx(100) for metric in CLASS_SUBSETS)


def test_training_on_several_domains_and_testing_on_others(
    everywhere: Path, tmp_path: Path
) -> None:
    """Sets of Cityscapes' classes, detectron2's own among them, go together."""
    for maker in ("gta5", "synthia", "cityscapes", "bdd100k", "mapillary_vistas"):
        MAKERS[maker](everywhere)
    tests = [
        "cityscapes_fine_sem_seg_val",
        "bdd100k_sem_seg_val",
        "mapillary_vistas_19_sem_seg_val",
    ]
    config = write_config(
        tmp_path,
        "domains",
        MODEL__META_ARCHITECTURE="MaskFormer",
        MODEL__SEM_SEG_HEAD__NUM_CLASSES=19,
        DATASETS__TRAIN=[
            "gta5_sem_seg_all",
            "synthia_sem_seg_all",
            "cityscapes_fine_sem_seg_train",
        ],
        DATASETS__TEST=tests,
        INPUT__DATASET_MAPPER_NAME="mask_former_semantic",
        INPUT__CROP={"ENABLED": True, "TYPE": "absolute", "SIZE": [32, 32]},
        SOLVER__MAX_ITER=2,
        OUTPUT_DIR=str(tmp_path / "output"),
    )
    results = main(arguments("--config-file", config))
    assert list(results) == tests
    for result in results.values():
        assert {"mIoU", "mIoU16", "mIoU13"} <= result["sem_seg"].keys()
