"""DETR's two steps for panoptic segmentation: boxes of things and stuff, then masks on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ddep.checkpoint import read_checkpoint
from ddep.engine import main, setup
from ddep.engine.trainer import Trainer
from ddep.errors import UserError
from tests.engine.tiny_runs import (
    arguments,
    metrics,
    one_thread,  # noqa: F401
    shapes_root,
    write_config,
)

pytestmark = pytest.mark.slow

DETR: dict[str, Any] = {
    "NUM_CLASSES": 8,
    "PANOPTIC_ON": True,
    "HIDDEN_DIM": 32,
    "DIM_FEEDFORWARD": 32,
    "ENC_LAYERS": 1,
    "DEC_LAYERS": 2,
    "NUM_OBJECT_QUERIES": 5,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("detr_masks")
    with shapes_root(folder):
        yield folder


@pytest.fixture(scope="module")
def config(folder: Path) -> str:
    return write_config(
        folder,
        "detr",
        MODEL__META_ARCHITECTURE="Detr",
        MODEL__DETR=DETR,
        DATASETS__TRAIN=["shapes_panoptic_train"],
        DATASETS__TEST=["shapes_panoptic_val"],
        INPUT__DATASET_MAPPER_NAME="detr_panoptic_boxes",
    )


@pytest.fixture(scope="module")
def detector(folder: Path, config: str) -> Path:
    """The checkpoint of the first step."""
    words = ["SOLVER.MAX_ITER", 2, "DATASETS.TEST", "()", "OUTPUT_DIR", folder / "boxes"]
    main(arguments("--config-file", config, *words))
    return folder / "boxes" / "model_final.pth"


def test_the_mask_head_learns_on_a_frozen_detector(
    folder: Path, config: str, detector: Path
) -> None:
    run = folder / "masks"
    words = ["MODEL.MASK_ON", True, "MODEL.DETR.FROZEN_WEIGHTS", detector, "OUTPUT_DIR", run]
    results = main(arguments("--config-file", config, *words))
    assert list(results) == ["panoptic_seg"]
    logged = {name for line in metrics(run) for name in line if name.startswith("loss")}
    assert logged == {"loss_mask", "loss_dice"}
    before = read_checkpoint(str(detector))["model"]
    after = read_checkpoint(str(run / "model_final.pth"))["model"]
    new = {name for name in after if name.startswith(("bbox_attention.", "mask_head."))}
    assert after.keys() - new == before.keys() and new
    assert all(torch.equal(after[name], before[name]) for name in before)
    # --eval-only needs nothing but the run's own checkpoint.
    detector.rename(detector.with_suffix(".moved"))
    words += ["MODEL.WEIGHTS", run / "model_final.pth"]
    assert main(arguments("--config-file", config, "--eval-only", *words)) == results
    detector.with_suffix(".moved").rename(detector)


def test_only_the_mask_head_is_in_the_optimizer(folder: Path, config: str, detector: Path) -> None:
    words = ["MODEL.MASK_ON", True, "MODEL.DETR.FROZEN_WEIGHTS", detector]
    cfg = setup(arguments("--config-file", config, *words, "OUTPUT_DIR", folder / "optimizer"))
    model = Trainer.build_model(cfg)
    groups = Trainer.build_optimizer(cfg, model).param_groups
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    heads = [*model.bbox_attention.parameters(), *model.mask_head.parameters()]
    assert trained == {id(parameter) for parameter in heads}
    model.train()
    assert model.mask_head.training and not model.transformer.training
    assert not any(module.training for module in model.backbone.modules())


def test_masks_learn_together_with_boxes_without_a_frozen_detector(
    folder: Path, config: str
) -> None:
    run = folder / "together"
    words = ["MODEL.MASK_ON", True, "SOLVER.MAX_ITER", 2, "OUTPUT_DIR", run]
    main(arguments("--config-file", config, *words))
    logged = {name for line in metrics(run) for name in line if name.startswith("loss")}
    of_layers = {f"loss_{name}{layer}" for name in ("ce", "bbox", "giou") for layer in ("", "_0")}
    assert logged == {*of_layers, "loss_mask", "loss_dice"}


MISTAKES = [
    ("MODEL.MASK_ON", False, "but MODEL.MASK_ON is False, so that nothing would learn"),
    ("MODEL.DETR.NUM_OBJECT_QUERIES", 6, r"lacks 1 of the detector's .*, such as query_embed.weig"),
    ("MODEL.DETR.HIDDEN_DIM", 24, "HIDDEN_DIM is 24 and MODEL.DETR.NHEADS 8; MODEL.MASK_ON needs"),
    ("MODEL.DETR.PANOPTIC_ON", False, "PANOPTIC_ON is False, but INPUT.DATASET_MAPPER_NAME is 'd"),
    ("MODEL.DETR.NUM_CLASSES", 7, "NUM_CLASSES is 7; data set shapes_panoptic_train has 8"),
    ("MODEL.DETR.FROZEN_WEIGHTS", "none.pth", "checkpoint none.pth does not exist"),
    ("MODEL.SWIN.OUT_FEATURES", ["res4", "res5"], "are res4, res5; MODEL.MASK_ON needs three"),
]


@pytest.mark.parametrize(("key", "value", "message"), MISTAKES)
def test_mistakes_are_named(
    folder: Path, config: str, detector: Path, key: str, value: Any, message: str
) -> None:
    words = ["MODEL.MASK_ON", True, "MODEL.DETR.FROZEN_WEIGHTS", detector, key, value]
    with pytest.raises(UserError, match=message):
        main(arguments("--config-file", config, *words, "OUTPUT_DIR", folder / "mistakes"))
