"""A run that is interrupted and resumed ends in the same bits as one that is not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ddep.checkpoint import read_checkpoint
from ddep.engine import Trainer, main, setup
from tests.engine.tiny_runs import (
    STATEFUL,
    arguments,
    classification_config,
    denoising_config,
    detection_config,
    detr_config,
    one_thread,
    per_pixel_config,
    shapes_config,
    shapes_root,
    trackformer_config,
    video_config,
    write_images,
)

pytestmark = pytest.mark.slow

__all__ = ["one_thread"]

ITERATIONS = 4
COMMON = STATEFUL | {"SOLVER.MAX_ITER": ITERATIONS, "SOLVER.CHECKPOINT_PERIOD": 1}
KINDS: dict[str, dict[str, Any]] = {
    "pretrain": {"MODEL.DDEP.MULTI_SCALE": True, "MODEL.DDEP.SIGMA": "[0.1,0.9]"},
    "finetune": {},
    # Its batch norms have a state too.
    "per_pixel": {"SOLVER.OPTIMIZER": "SGD"},
    "classification": {},
    # Draws anchors and proposals in its forward pass.
    "detection": {},
    "video": {},
    # Draws which track queries it drops, and adds.
    "trackformer": {"MODEL.TRACKFORMER.FALSE_POSITIVES": 0.5},
    # Drops out and crops.
    "detr": {},
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def config(kind: str, tmp_path: Path) -> Iterator[str]:
    if kind == "pretrain":
        yield denoising_config(tmp_path, write_images(tmp_path / "images", 7))
        return
    with shapes_root(tmp_path):
        make_config = {
            "finetune": shapes_config,
            "per_pixel": partial(per_pixel_config, head="DeepLabV3PlusHead"),
            "classification": classification_config,
            "detection": detection_config,
            "video": video_config,
            "trackformer": trackformer_config,
            "detr": detr_config,
        }[kind]
        yield make_config(tmp_path)


def write_half(config: str, path: Path) -> str:
    """Write a checkpoint with all but the last third of the weights of the model of ``config``."""
    torch.manual_seed(9)
    cfg = setup(arguments("--config-file", config, "OUTPUT_DIR", path.parent / "unused"))
    model = Trainer.build_model(cfg)
    weights = list(model.state_dict().items())
    torch.save({"model": dict(weights[: 2 * len(weights) // 3])}, path)
    return str(path)


def train(config: str, folder: Path, *words: object, settings: dict[str, Any]) -> None:
    keys = [item for pair in (COMMON | settings).items() for item in pair]
    main(arguments("--config-file", config, *words, *keys, "OUTPUT_DIR", folder))


def state(path: Path) -> dict[str, torch.Tensor]:
    """Weights, their average and the optimizer's moments, by name."""
    content = read_checkpoint(str(path))
    found = {f"model {name}": value for name, value in content["model"].items()}
    found |= {f"ema {name}": value for name, value in content["ema"]["model"].items()}
    for index, moments in content["trainer"]["_trainer"]["optimizer"]["state"].items():
        found |= {f"optimizer {index} {name}": value for name, value in moments.items()}
    return found


def differences(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> list[str]:
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]


# What is transferred stays as it is for two iterations, then trains at other rates.
RATES: dict[str, Any] = {
    "SOLVER.TRANSFERRED_MULTIPLIER": 0.5,
    "SOLVER.NEW_ONLY_ITERS": 2,
    "SOLVER.LAYER_DECAY": 0.8,
}


@pytest.mark.parametrize(
    ("workers", "rates", "interruptions"),
    # With workers and rates: before, when and after all begins to train.
    [(0, {}, [2]), (2, RATES, [1, 2, 3])],
    ids=["plain", "rates"],
)
def test_interruptions_lead_to_the_same_bits(
    config: str,
    kind: str,
    workers: int,
    rates: dict[str, Any],
    interruptions: list[int],
    tmp_path: Path,
) -> None:
    # Without a seed, every process starts with other numbers.
    settings = KINDS[kind] | rates | {"SEED": -1, "TEST.EVAL_PERIOD": 2}
    settings["DATALOADER.NUM_WORKERS"] = workers
    if rates:
        settings["MODEL.WEIGHTS"] = write_half(config, tmp_path / "half.pth")
    whole = tmp_path / "whole"
    train(config, whole, settings=settings)
    expected = state(whole / "model_final.pth")
    for done in interruptions:
        folder = tmp_path / f"interrupted-{done}"
        folder.mkdir()
        name = f"model_{done - 1:07d}.pth"
        shutil.copy(whole / name, folder)
        (folder / "last_checkpoint").write_text(name)
        train(config, folder, "--resume", settings=settings)
        assert differences(expected, state(folder / "model_final.pth")) == []


def test_other_interruptions_do_not_matter_but_a_seed_does(
    config: str, kind: str, tmp_path: Path
) -> None:
    """Evaluating, workers and the parts of a batch leave the samples as they are."""
    settings = KINDS[kind] | {"SOLVER.MAX_ITER": 2}
    train(config, tmp_path / "a", settings=settings | {"DATASETS.TEST": "()"})
    train(config, tmp_path / "b", settings=settings | {"TEST.EVAL_PERIOD": 1})
    train(config, tmp_path / "c", settings=settings | {"SEED": 4})
    first = state(tmp_path / "a" / "model_final.pth")
    assert differences(first, state(tmp_path / "b" / "model_final.pth")) == []
    assert differences(first, state(tmp_path / "c" / "model_final.pth"))
