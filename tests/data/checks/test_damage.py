"""Each damage: what a check finds, and what training does about it."""

from __future__ import annotations

import re
from itertools import islice

import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from ddep.data import build_train_loader
from ddep.data.datasets.catalog import register
from ddep.engine import dataset_check
from ddep.engine.dataset_check import check_dataset
from ddep.errors import UserError
from tests.data.checks.damages import DAMAGES, Damage
from tests.data.checks.trees import INSTANCES, PANOPTIC, SEMANTIC, Tree, cut

damages = pytest.mark.parametrize("damage", DAMAGES, ids=[damage.name for damage in DAMAGES])
MAPPERS = {
    PANOPTIC: "mask_former_panoptic",
    SEMANTIC: "mask_former_semantic",
    INSTANCES: "mask_former_instance",
}


@damages
def test_is_found(damage: Damage, tree: Tree, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        dataset_check, "draw_contact_sheet", lambda *_: np.zeros((1, 1, 3), np.uint8)
    )
    damage.do(tree)
    report = check_dataset(damage.data_set, str(tmp_path / "out"), workers=1)
    found = [problem for problems in report.problems.values() for problem in problems]
    assert sorted(problem.kind for problem in found) == sorted(kind for kind, _ in damage.found)
    for kind, message in damage.found:
        assert any(p.kind == kind and re.search(message, p.message) for p in found), found
    assert all("\n" not in problem.message for problem in found)


@damages
def test_training(damage: Damage, tree: Tree, config) -> None:
    damage.do(tree)
    cfg = config(
        *("DATASETS.TRAIN", (damage.data_set,)),
        *("INPUT.DATASET_MAPPER_NAME", MAPPERS[damage.data_set]),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3),
        *("INPUT.MIN_SIZE_TRAIN", (16,)),
        *("SOLVER.IMS_PER_BATCH", 2),
        *("DATALOADER.NUM_WORKERS", 0),
    )

    def train() -> dict[str, str]:
        loader = build_train_loader(cfg)
        for batch in islice(loader, 8):
            assert all(len(sample["instances"].gt_classes) <= 2 for sample in batch)
        return loader.unreadable

    if damage.training not in ("", "skipped"):
        with pytest.raises(UserError, match=damage.training) as error:
            train()
        assert "\n" not in str(error.value)
    else:
        assert list(train()) == [str(tree.image("b"))] * (damage.training == "skipped")


def test_two_folders_that_do_not_load_are_checked_as_far_as_they_fit(tree: Tree, tmp_path) -> None:
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
