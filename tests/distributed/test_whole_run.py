"""train_net.py with two processes and with one: the same training, the same results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddep.checkpoint import read_checkpoint
from ddep.engine import main
from tests.engine.test_exact_resume import write_half
from tests.engine.tiny_runs import arguments, denoising_config, metrics, one_thread, write_images

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
__all__ = ["one_thread"]


def test_two_processes_train_and_evaluate_as_one(tmp_path: Path) -> None:
    config = denoising_config(tmp_path, write_images(tmp_path / "images", 3))
    words = ["--config-file", config, "MODEL.DEVICE", "cpu", "SOLVER.MAX_ITER", "3"]
    # The first two iterations train a part of the model only.
    words += ["MODEL.WEIGHTS", write_half(config, tmp_path / "half.pth")]
    words += ["SOLVER.NEW_ONLY_ITERS", "2", "SOLVER.TRANSFERRED_MULTIPLIER", "0.5"]
    folders = [tmp_path / "one", tmp_path / "two"]
    main(arguments(*words, "OUTPUT_DIR", folders[0]))
    command = [sys.executable, "train_net.py", "--num-gpus", "2", *words, "OUTPUT_DIR", folders[1]]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    one, two = (
        [line["total_loss"] for line in metrics(folder) if "total_loss" in line]
        for folder in folders
    )
    assert one
    assert two == pytest.approx(one, rel=1e-5)
    one, two = (json.loads((folder / "inference/results.json").read_text()) for folder in folders)
    assert two["denoising"] == pytest.approx(one["denoising"], rel=1e-4)
    one, two = (read_checkpoint(str(folder / "model_final.pth")) for folder in folders)
    assert two["transferred"] == one["transferred"]
    for name, weight in one["model"].items():
        torch.testing.assert_close(two["model"][name], weight, rtol=1e-3, atol=1e-4)
    assert (folders[1] / "log.txt.rank1").exists()
    # The console has the lines of one process.
    assert ended.stdout.count("Starting training from iteration 0") == 1
