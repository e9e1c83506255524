"""Whole runs on data sets of DATASETS.CUSTOM: train two iterations, evaluate, predict, export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ddep.data.datasets import register_from_config
from ddep.engine import main
from ddep.export import export_to_hugging_face
from ddep.inference import Predictor, predict_files
from ddep.tasks import load_config, task_of
from tests.data.checks.trees import INSTANCES, NAMES, OWN, OWN_IMAGES, PANOPTIC, SEMANTIC, Tree
from tests.data.datasets.true_outputs import RESULTS, TASKS, true_output
from tests.engine.tiny_runs import arguments, metrics, one_thread, write_config

pytestmark = pytest.mark.slow

__all__ = ["one_thread"]

# By kind: name, number of classes, and what is evaluated.
KINDS = {
    "semantic": (OWN[SEMANTIC], 3, ("SEMANTIC",)),
    "panoptic": (OWN[PANOPTIC], 3, ("PANOPTIC", "SEMANTIC")),
    "instance": (OWN[INSTANCES], 1, ("INSTANCE",)),
}
VOID = 255


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path / "data")
    yield tree
    tree.unregister()


def segmentation_config(folder: Path, kind: str, custom: list[dict[str, Any]]) -> str:
    """A config that trains and evaluates on the tree's data set of ``kind``."""
    name, classes, evaluated = KINDS[kind]
    return write_config(
        folder,
        kind,
        MODEL__META_ARCHITECTURE="MaskFormer",
        MODEL__SEM_SEG_HEAD__NUM_CLASSES=classes,
        MODEL__MASK_FORMER__TEST={f"{task}_ON": task in evaluated for task in TASKS},
        DATASETS={"TRAIN": [name], "TEST": [name], "CUSTOM": custom},
        INPUT__DATASET_MAPPER_NAME=f"mask_former_{kind}",
        INPUT__CROP={"ENABLED": True, "TYPE": "absolute", "SIZE": [32, 32]},
        INPUT__SIZE_DIVISIBILITY=32,
        SOLVER__MAX_ITER=2,
        OUTPUT_DIR=str(folder / "output"),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_train_and_evaluate(kind: str, tree: Tree, tmp_path: Path) -> None:
    _, _, evaluated = KINDS[kind]
    config = segmentation_config(tmp_path, kind, tree.custom())
    results = main(arguments("--config-file", config))
    assert results.keys() == {RESULTS[task][0] for task in evaluated}
    assert_trained(tmp_path / "output")
    if "SEMANTIC" in evaluated:
        predictor = trained(tmp_path / "output")
        assert results["sem_seg"]["mIoU"] == pytest.approx(mean_iou(predictor, tree), abs=1e-3)


def trained(output: Path) -> Predictor:
    """The model that a run has written into ``output``."""
    return Predictor(output)


def mean_iou(predictor: Predictor, tree: Tree) -> float:
    """Percent, over the classes that the labels of the tree's images show."""
    labels = np.stack([np.asarray(Image.open(tree.semantic(name))) for name in NAMES])
    found = np.stack([predictor(tree.image(name)).semantic for name in NAMES])
    found[labels == VOID] = VOID
    pairs = [(labels == i, found == i) for i in range(3)]
    return 100 * np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs if a.any()])


# What it costs to call everything in image b sky. Of the four images, each with as much sky as cat:
# - IoU of sky 4 / 5, of cat 3 / 4;
# - PQ of sky 3 / (3 + 1 / 2 + 1 / 2), of cat 2 / (2 + 1 / 2), as image d's is a crowd;
# - AP of cat: three of four are found, and 76 of COCO's 101 recalls are not above 3 / 4.
WITHOUT_B = {"SEMANTIC": 77.5, "PANOPTIC": 77.5, "INSTANCE": 7600 / 101}


@pytest.mark.parametrize("mistake", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_scores_100_and_a_mistake_less(
    kind: str, mistake: bool, tree: Tree, tmp_path: Path
) -> None:
    name, classes, evaluated = KINDS[kind]
    cfg = load_config(segmentation_config(tmp_path, kind, tree.custom()))
    register_from_config(cfg)
    evaluator = task_of(cfg).build_evaluator(cfg, name, cfg.OUTPUT_DIR)
    evaluator.reset()
    things = MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id", {}).values()
    for record in DatasetCatalog.get(name):
        output = true_output(record, evaluated, classes, VOID, things)
        if mistake and Path(record["file_name"]).stem == "b":
            output = all_sky(output)
        evaluator.process([record], [output])
    results = evaluator.evaluate()
    for task in evaluated:
        group, metric = RESULTS[task]
        expected = WITHOUT_B[task] if mistake else 100
        assert results[group][metric] == pytest.approx(expected), task


def all_sky(output: dict[str, Any]) -> dict[str, Any]:
    """The output of a model that sees nothing but sky, which has class 0."""
    changed: dict[str, Any] = {}
    if "sem_seg" in output:
        changed["sem_seg"] = torch.zeros_like(output["sem_seg"])
        changed["sem_seg"][0] = 1
    if "panoptic_seg" in output:
        segments, _ = output["panoptic_seg"]
        sky = {"id": 1, "category_id": 0, "isthing": False}
        changed["panoptic_seg"] = torch.ones_like(segments), [sky]
    if "instances" in output:
        changed["instances"] = output["instances"][:0]
    return changed


def test_pretrain_on_images(tree: Tree, tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        "images",
        MODEL__META_ARCHITECTURE="DenoisingPretrainer",
        DATASETS={"TRAIN": [OWN_IMAGES], "TEST": [OWN_IMAGES], "CUSTOM": tree.custom()},
        INPUT__DATASET_MAPPER_NAME="ddep_denoising",
        INPUT__CROP={"ENABLED": True, "TYPE": "absolute", "SIZE": [32, 32]},
        SOLVER__MAX_ITER=2,
        OUTPUT_DIR=str(tmp_path / "output"),
    )
    results = main(arguments("--config-file", config))
    assert_trained(tmp_path / "output")
    predictor = trained(tmp_path / "output")
    inputs = [predictor.inputs(tree.image(name), position) for position, name in enumerate(NAMES)]
    predictions = [predictor.predict([of_image])[0] for of_image in inputs]
    errors = [(p.outputs["noise"] - p.inputs["noise"]).square().mean() for p in predictions]
    assert results["denoising"]["noise_mse"] == pytest.approx(np.mean(errors), rel=1e-4)


def assert_trained(output: Path) -> None:
    losses = [line["total_loss"] for line in metrics(output) if "total_loss" in line]
    assert losses and all(0 < loss < 1000 for loss in losses)


def test_a_panoptic_set_without_semantic_labels_is_measured_by_panoptic_quality_alone(
    tree: Tree, tmp_path: Path
) -> None:
    custom = tree.custom()
    del custom[0]["semantic_labels"]
    results = main(arguments("--config-file", segmentation_config(tmp_path, "panoptic", custom)))
    assert results.keys() == {"panoptic_seg"}


def test_the_config_that_a_run_writes_predicts_and_exports(tree: Tree, tmp_path: Path) -> None:
    """In another process nothing is registered yet."""
    config = segmentation_config(tmp_path, "panoptic", tree.custom())
    main(arguments("--config-file", config, "DATASETS.TEST", "()"))
    tree.unregister()
    written, weights = tmp_path / "output" / "config.yaml", tmp_path / "output" / "model_final.pth"
    assert yaml.safe_load(written.read_text())["DATASETS"]["CUSTOM"] == tree.custom()

    cfg = load_config(str(written), ["MODEL.WEIGHTS", str(weights)])
    [picture] = predict_files(cfg, [tree.image("a")], tmp_path / "pictures")
    assert np.asarray(Image.open(picture)).std() > 0

    tree.unregister()
    export_to_hugging_face(str(weights), str(tmp_path / "exported"))
    exported = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert exported["id2label"] == {"0": "sky", "1": "cat", "2": "sea"}
