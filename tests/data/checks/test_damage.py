"""Each kind of damage: what a check finds, and the effect on training."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ddep.data import build_train_loader, register_from_config
from ddep.data.checks.problems import KINDS
from ddep.data.datasets.catalog import register
from ddep.errors import UserError
from ddep.inference import dataset_check
from ddep.inference.dataset_check import check_dataset
from tests.data.checks.damages import DAMAGES, Damage
from tests.data.checks.trees import INSTANCES, OWN, OWN_IMAGES, PANOPTIC, SEMANTIC, Tree, cut

damages = pytest.mark.parametrize("damage", DAMAGES, ids=[damage.name for damage in DAMAGES])
MAPPERS = {
    PANOPTIC: "mask_former_panoptic",
    SEMANTIC: "mask_former_semantic",
    INSTANCES: "mask_former_instance",
}


@damages
def test_is_found(damage: Damage, tree: Tree, tmp_path, monkeypatch) -> None:
    check(damage.data_set, damage, damage.found, tree, tmp_path, monkeypatch)


@damages
def test_is_found_in_custom_sets(damage: Damage, tree: Tree, config, tmp_path, monkeypatch) -> None:
    found = damage.found + damage.also_found
    cfg = config("DATASETS.CUSTOM", tree.custom())
    check(OWN[damage.data_set], damage, found, tree, tmp_path, monkeypatch, cfg)


def check(
    name: str,
    damage: Damage,
    expected: list[tuple[str, str]],
    tree: Tree,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    cfg: CfgNode | None = None,
) -> None:
    monkeypatch.setattr(
        dataset_check, "draw_contact_sheet", lambda *_: np.zeros((1, 1, 3), np.uint8)
    )
    damage.do(tree)
    report = check_dataset(name, str(folder / "out"), workers=1, cfg=cfg)
    found = [problem for problems in report.problems.values() for problem in problems]
    assert sorted(problem.kind for problem in found) == sorted(kind for kind, _ in expected)
    for kind, message in expected:
        assert any(p.kind == kind and re.search(message, p.message) for p in found), found
    assert all("\n" not in problem.message for problem in found)


@damages
def test_training(damage: Damage, tree: Tree, config) -> None:
    damage.do(tree)
    cfg = training_config(config, damage.data_set, MAPPERS[damage.data_set])
    train(cfg, damage.training, tree)


@damages
def test_training_on_custom_sets(damage: Damage, tree: Tree, config) -> None:
    damage.do(tree)
    name, mapper = OWN[damage.data_set], MAPPERS[damage.data_set]
    cfg = training_config(config, name, mapper, tree.custom())
    train(cfg, damage.refused or damage.training, tree)


def test_an_unreadable_image_of_a_custom_set_without_labels(
    tree: Tree, config, tmp_path: Path
) -> None:
    cut(tree.image("b"))
    cfg = training_config(config, OWN_IMAGES, "ddep_denoising", tree.custom())
    report = check_dataset(OWN_IMAGES, str(tmp_path / "out"), workers=1, cfg=cfg)
    found = {kind: [p.file for p in problems] for kind, problems in report.problems.items()}
    assert found == {"unreadable": [str(tree.image("b"))]}
    train(cfg, "skipped", tree)


def training_config(
    config: Callable[..., CfgNode], name: str, mapper: str, custom: Sequence[dict] = ()
) -> CfgNode:
    return config(
        *("DATASETS.CUSTOM", list(custom)),
        *("DATASETS.TRAIN", (name,)),
        *("INPUT.DATASET_MAPPER_NAME", mapper),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3),
        *("INPUT.MIN_SIZE_TRAIN", (16,)),
        *("SOLVER.IMS_PER_BATCH", 2),
        *("DATALOADER.NUM_WORKERS", 0),
    )


def train(cfg: CfgNode, expected: str, tree: Tree) -> None:
    """Start training; ``expected`` is the ``training`` of a :class:`Damage`."""

    def run() -> dict[str, str]:
        register_from_config(cfg)
        loader = build_train_loader(cfg)
        for batch in islice(loader, 8):
            assert all(len(sample.get("instances", ())) <= 2 for sample in batch)
        return loader.unreadable

    if expected not in ("", "skipped"):
        with pytest.raises(UserError, match=expected) as error:
            run()
        assert "\n" not in str(error.value)
    else:
        assert list(run()) == [str(tree.image("b"))] * (expected == "skipped")


def test_no_kind_of_problem_is_without_a_damage() -> None:
    # No file crashes a process on every machine; tests/engine covers that kind.
    assert {kind for damage in DAMAGES for kind, _ in damage.found} == KINDS.keys() - {"crash"}


def test_two_folders_that_do_not_load_are_checked_by_pairs(tree: Tree, tmp_path) -> None:
    def load() -> list[dict]:
        raise UserError("each image needs its label")

    metadata = MetadataCatalog.get(SEMANTIC).as_dict()
    register(SEMANTIC, load, **{key: metadata[key] for key in metadata.keys() - {"name"}})
    tree.image("a").unlink()
    tree.semantic("b").unlink()
    cut(tree.semantic("c"))
    report = check_dataset(SEMANTIC, str(tmp_path / "out"), workers=1)
    assert report.images == 2
    found = {kind: [p.file for p in problems] for kind, problems in report.problems.items()}
    assert found == {
        "unpaired": [str(tree.image("b")), str(tree.semantic("a"))],
        "annotations": [SEMANTIC],
        "unreadable": [str(tree.semantic("c"))],
    }
