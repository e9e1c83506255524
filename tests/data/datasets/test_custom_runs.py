"""Whole runs on data sets of DATASETS.CUSTOM: train two iterations, evaluate, predict, export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ddep.engine import main
from ddep.export import export_to_hugging_face
from ddep.inference import predict_files
from ddep.tasks import load_config
from tests.data.checks.trees import INSTANCES, OWN, OWN_IMAGES, PANOPTIC, SEMANTIC, Tree
from tests.engine.tiny_runs import arguments, metrics, one_thread, write_config

__all__ = ["one_thread"]

TASKS = ("SEMANTIC", "INSTANCE", "PANOPTIC")
# By kind: name, classes, what is evaluated and the number that it is asked for.
KINDS = {
    "semantic": (OWN[SEMANTIC], 3, {"SEMANTIC": ("sem_seg", "mIoU")}),
    "panoptic": (
        OWN[PANOPTIC],
        3,
        {"PANOPTIC": ("panoptic_seg", "PQ"), "SEMANTIC": ("sem_seg", "mIoU")},
    ),
    "instance": (OWN[INSTANCES], 1, {"INSTANCE": ("segm", "AP")}),
}


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
    results = main(arguments("--config-file", segmentation_config(tmp_path, kind, tree.custom())))
    assert results.keys() == {group for group, _ in evaluated.values()}
    assert all(0 <= results[group][metric] <= 100 for group, metric in evaluated.values())
    assert_trained(tmp_path / "output")


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
    assert results["denoising"]["noise_mse"] > 0
    assert_trained(tmp_path / "output")


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
