"""What is sent to Weights & Biases, seen by a stand-in for its package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage

from ddep.engine import main
from ddep.engine.wandb_writer import WandbWriter, check_wandb
from ddep.errors import UserError
from ddep.tasks import load_config
from tests.engine.tiny_runs import arguments, denoising_config, write_images


class Run:
    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.id = arguments["id"] or "fresh"
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def log(self, values: dict[str, Any], step: int) -> None:
        assert not self.finished
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs that are started."""
    started: list[Run] = []

    def init(**arguments: Any) -> Run:
        started.append(Run(**arguments))
        return started[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Image=np.array))
    return started


@pytest.fixture
def config(tmp_path: Path) -> str:
    return denoising_config(tmp_path, write_images(tmp_path / "images"))


def test_numbers_are_logged_once_in_order_with_pictures(
    runs: list[Run], config: str, tmp_path: Path
) -> None:
    cfg = load_config(config, ["OUTPUT_DIR", str(tmp_path)])
    writer = WandbWriter(cfg, resume=False)
    with EventStorage(5) as storage:
        storage.put_scalar("total_loss", 3.0)
        storage.step()
        storage.put_scalar("sem_seg/mIoU", 40.0, smoothing_hint=False)
        storage.put_image("denoising", torch.arange(24, dtype=torch.uint8).view(3, 2, 4))
        writer.write()
        storage.clear_images()
        writer.write()
        storage.step()
        storage.put_scalar("total_loss", 1.0)
        writer.write()
    writer.close()
    (first, losses), (second, others), (third, later) = runs[0].logged
    assert (first, second, third) == (5, 6, 7)
    assert losses == {"total_loss": 3.0}
    assert others["sem_seg/mIoU"] == 40.0
    assert others["denoising"][1, 2].tolist() == [6, 14, 22]
    assert later == {"total_loss": 2.0}  # a median
    assert runs[0].finished


def test_a_resumed_training_continues_its_run(runs: list[Run], config: str, tmp_path: Path) -> None:
    words = ["WANDB.ENABLED", True, "WANDB.NAME", "mine", "DATASETS.TEST", "()"]
    main(arguments("--config-file", config, *words, "SOLVER.MAX_ITER", 2))
    main(arguments("--config-file", config, "--resume", *words, "SOLVER.MAX_ITER", 4))
    main(arguments("--config-file", config, *words, "SOLVER.MAX_ITER", 2))
    first, second, third = (run.arguments for run in runs)
    assert (first["project"], first["name"]) == ("ddep", "mine")
    assert first["config"]["SOLVER"]["MAX_ITER"] == 2
    assert (first["id"], second["id"], third["id"]) == (None, "fresh", None)
    assert second["resume"] == "allow"
    assert all("total_loss" in run.logged[-1][1] for run in runs)


def test_a_missing_package_is_named(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    check_wandb(load_config(config))
    with pytest.raises(UserError, match="package wandb cannot be imported; pip install wandb"):
        check_wandb(load_config(config, ["WANDB.ENABLED", "True"]))
