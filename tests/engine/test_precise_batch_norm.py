"""Batch norms' statistics over many batches, in a run that is resumed too."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from ddep.checkpoint import read_checkpoint
from ddep.engine import main
from tests.engine.tiny_runs import arguments, denoising_config, one_thread, write_images

__all__ = ["one_thread"]


def train(config: str, folder: Path, *words: object) -> dict[str, torch.Tensor]:
    """The model's tensors at the end."""
    keys = ["DATASETS.TEST", "()", "MODEL.SEM_SEG_HEAD.NORM", "BN", "SOLVER.CHECKPOINT_PERIOD", 1]
    keys += ["TEST.EVAL_PERIOD", 2, "TEST.PRECISE_BN.NUM_ITER", 2, "SEED", -1]
    main(arguments("--config-file", config, *words, *keys, "OUTPUT_DIR", folder))
    return read_checkpoint(str(folder / "model_final.pth"))["model"]


def test_a_resumed_run_has_the_same_statistics(tmp_path: Path) -> None:
    config = denoising_config(tmp_path, write_images(tmp_path / "images", 7))
    precise = ["TEST.PRECISE_BN.ENABLED", True]
    whole = train(config, tmp_path / "whole", *precise)
    folders = [tmp_path / "resumed", tmp_path / "usual"]
    for folder in folders:
        folder.mkdir()
        shutil.copy(tmp_path / "whole" / "model_0000002.pth", folder)
        (folder / "last_checkpoint").write_text("model_0000002.pth")
    resumed = train(config, folders[0], "--resume", *precise)
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    usual = train(config, folders[1], "--resume")
    statistics = [name for name in whole if "running_" in name]
    assert statistics
    assert not any(torch.equal(whole[name], usual[name]) for name in statistics)
