"""The example, a model and a data set that the package does not know, by its page's commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddep.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]
CONFIG = "examples/unet_coins.yaml"
Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a command of the repository with the coins below $DETECTRON2_DATASETS."""
    folder = tmp_path_factory.mktemp("datasets")
    environment = {
        **os.environ,
        "DETECTRON2_DATASETS": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }

    def run(*command: object) -> str:
        result = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        return result.stdout

    written = run("examples/data.py")
    assert f"written to {folder}/coins" in written
    return run


@pytest.fixture(scope="module")
def trained(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run, with a checkpoint on the way."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run("train_net.py", "--config-file", CONFIG, *keys(folder))
    return folder


def keys(folder: Path) -> list[object]:
    return ["SOLVER.CHECKPOINT_PERIOD", 60, "OUTPUT_DIR", folder]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(str(folder / "model_final.pth"))["model"]


def test_it_learns_and_evaluates(run: Run, trained: Path, tmp_path: Path) -> None:
    results = json.loads((trained / "inference" / "results.json").read_text())
    assert results["sem_seg"]["mIoU"] > 90
    checkpoint = ("MODEL.WEIGHTS", trained / "model_final.pth")
    run("train_net.py", "--config-file", CONFIG, "--eval-only", *checkpoint, *keys(tmp_path))
    assert json.loads((tmp_path / "inference" / "results.json").read_text()) == results


def test_it_resumes_in_the_same_bits(run: Run, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "model_0000059.pth").write_bytes((trained / "model_0000059.pth").read_bytes())
    (tmp_path / "last_checkpoint").write_text("model_0000059.pth")
    output = run("train_net.py", "--config-file", CONFIG, "--resume", *keys(tmp_path))
    assert "Starting training from iteration 60" in output
    expected = weights(trained)
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path).items())


def test_it_draws_pictures(run: Run, trained: Path, tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 48), (120, 80, 40))
    image.paste((220, 190, 90), (20, 10, 44, 34))
    image.save(tmp_path / "one.png")
    paths = ("--input", tmp_path / "one.png", "--output", tmp_path / "drawn")
    checkpoint = ("MODEL.WEIGHTS", trained / "model_final.pth")
    run("tools/predict.py", "--config-file", CONFIG, *paths, *checkpoint)
    [picture] = (tmp_path / "drawn").iterdir()
    pixels = np.asarray(Image.open(picture))
    height, width = pixels.shape[:2]
    assert height * 64 == width * 48
    assert pixels.std() > 0


def test_two_processes_import_it(run: Run, tmp_path: Path) -> None:
    two = ("--num-gpus", 2, "SOLVER.MAX_ITER", 2, "MODEL.DDEP.CHANNELS_LAST", True)
    run("train_net.py", "--config-file", CONFIG, *two, *keys(tmp_path))
    assert weights(tmp_path)["network.classify.weight"].isfinite().all()
