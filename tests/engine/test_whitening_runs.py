"""Runs with the whitening loss: resumed in the middle, and with target images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model

from ddep.checkpoint import read_checkpoint
from ddep.engine import main, setup
from ddep.engine.whitening import check_whitening, whitens
from ddep.errors import UserError
from ddep.modeling.backbone.whitened_resnet import whitening_layers
from ddep.tasks import load_config
from tests.engine.tiny_runs import (
    STATEFUL,
    arguments,
    denoising_config,
    metrics,
    one_thread,
    per_pixel_config,
    shapes_root,
    write_images,
)

__all__ = ["one_thread"]

# Steps 0 and 1 measure, step 2 is the first with the loss.
ISW: dict[str, Any] = {
    "MODEL.BACKBONE.NAME": "build_whitened_resnet_deeplab_backbone",
    "MODEL.ISW.START_ITER": 2,
    "MODEL.ISW.MEASURED_ITERS": 2,
}
ADAPTATION: dict[str, Any] = {
    "MODEL.ADAPTATION.METHOD": "teacher",
    "DATASETS.TARGET": "('shapes_classes_unlabelled',)",
}


@pytest.fixture
def config(tmp_path: Path) -> Iterator[str]:
    with shapes_root(tmp_path):
        yield per_pixel_config(tmp_path, "DeepLabV3PlusHead")


def train(config: str, folder: Path, *words: object, **settings: Any) -> dict[str, Any]:
    """The last checkpoint's content."""
    keys = STATEFUL | {"SOLVER.MAX_ITER": 4, "SOLVER.CHECKPOINT_PERIOD": 1} | ISW | settings
    keys |= {"DATASETS.TEST": "()", "SOLVER.OPTIMIZER": "SGD"}
    items = [item for pair in keys.items() for item in pair]
    main(arguments("--config-file", config, *words, *items, "OUTPUT_DIR", folder))
    return read_checkpoint(str(folder / "model_final.pth"))


def tensors(content: dict[str, Any]) -> dict[str, torch.Tensor]:
    whitening = content["whitening"]
    layers = [*whitening["variances"], *whitening["masks"]]
    return content["model"] | {f"whitening {i}": tensor for i, tensor in enumerate(layers)}


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, ADAPTATION], ids=["alone", "with target images"])
def test_masks_survive_a_resume(config: str, settings: dict[str, Any], tmp_path: Path) -> None:
    whole = train(config, tmp_path / "whole", **settings)
    assert whole["whitening"]["has_masks"]
    assert whole["whitening"]["images"] == (16 if settings else 8)
    lines = metrics(tmp_path / "whole")
    assert lines[-1]["loss_whitening"] > 0
    expected = tensors(whole)
    for done in (1, 3):  # while it measures, and when the loss is part of the training
        folder = tmp_path / str(done)
        folder.mkdir()
        shutil.copy(tmp_path / "whole" / f"model_{done - 1:07d}.pth", folder)
        (folder / "last_checkpoint").write_text(f"model_{done - 1:07d}.pth")
        found = tensors(train(config, folder, "--resume", **settings))
        assert found.keys() == expected.keys()
        assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_a_run_without_the_loss_cannot_be_resumed_with_it(config: str, tmp_path: Path) -> None:
    train(config, tmp_path, **{"MODEL.ISW.WEIGHT": 0.0, "SOLVER.MAX_ITER": 1})
    with pytest.raises(UserError, match="is of a run without MODEL.ISW"):
        train(config, tmp_path, "--resume")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL.ISW.START_ITER", 0], "START_ITER is 0; expected a whole number of at least 1"),
        (["MODEL.ISW.MEASURED_ITERS", 0], "MEASURED_ITERS is 0; expected"),
        (["MODEL.ISW.CLUSTERS", 1], "CLUSTERS is 1; expected a whole number of at least 2"),
        (["MODEL.ISW.WEIGHT", -1.0], "WEIGHT is -1.0; expected a number of at least 0"),
        (["MODEL.ISW.COLOR_JITTER", [1.0]], r"COLOR_JITTER is \[1.0\]; expected four numbers"),
        (["MODEL.ISW.BLUR_SIGMA", [0.0, 1.0]], r"BLUR_SIGMA is \[0.0, 1.0\]; expected two numbers"),
        (["MODEL.BACKBONE.FREEZE", True], "WEIGHT is 0.6, but MODEL.BACKBONE.FREEZE keeps"),
        (["MODEL.DDEP.COMPILE", True], "WEIGHT is 0.6, but with MODEL.DDEP.COMPILE"),
    ],
)
def test_values_that_cannot_be_are_one_line(
    config: str, words: list[object], message: str, tmp_path: Path
) -> None:
    given = [item for pair in ISW.items() for item in pair]
    with pytest.raises(UserError, match=f"^MODEL.ISW.{message}"):
        setup(arguments("--config-file", config, *given, *words, "OUTPUT_DIR", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_denoising_has_no_whitening_loss(tmp_path: Path) -> None:
    config = denoising_config(tmp_path, write_images(tmp_path / "images"))
    words = ["MODEL.BACKBONE.NAME", "build_whitened_resnet_backbone"]
    with pytest.raises(UserError, match="images of denoising are noisy.*set MODEL.ISW.WEIGHT to 0"):
        setup(arguments("--config-file", config, *words))


def test_shipped_config_builds_the_whitened_model() -> None:
    folder = Path(__file__).parents[2] / "configs/adapt/cityscapes"
    assert not whitens(load_config(str(folder / "deeplab_source_only.yaml")))
    cfg = load_config(str(folder / "deeplab_isw.yaml"), ["MODEL.DEVICE", "cpu"])
    assert whitens(cfg)
    check_whitening(cfg)
    layers = whitening_layers(build_model(cfg).backbone)
    assert [layer.num_features for layer in layers] == [64, 256, 512]
