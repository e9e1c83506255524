"""Pretraining on the frames of videos, and the video model that takes the decoder over."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from ddep.checkpoint import Checkpointer, read_checkpoint
from ddep.checkpoint.groups import group_of
from ddep.engine import main
from ddep.tasks import load_config
from tests.data.videos import overwrite, truncate, write_video
from tests.engine.tiny_runs import (
    arguments,
    denoising_config,
    metrics,
    one_thread,
    write_config,
    write_images,
)

pytestmark = pytest.mark.slow

__all__ = ["one_thread"]


def write_videos(folder: Path) -> Path:
    """A whole video, a truncated one, one with a hole, one that is none, and an image."""
    write_images(folder, 1)
    write_video(folder / "whole.mp4", frames=30)
    truncate(write_video(folder / "deep" / "cut.avi", frames=30, codec="MJPG"), 0.5)
    overwrite(write_video(folder / "hole.mp4", frames=100), 0.4, 0.5)
    (folder / "none.mp4").write_bytes(b"no video")
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(str(folder / "model_final.pth"))["model"]


def test_frames_are_trained_on_and_the_video_model_takes_the_decoder_over(tmp_path: Path) -> None:
    config = denoising_config(tmp_path, write_videos(tmp_path / "videos"))
    words = ["DATASETS.TRAIN", f"('images:{tmp_path}/videos@5fps',)"]
    words += ["DATASETS.TEST", f"('images:{tmp_path}/videos/whole.mp4',)", "SOLVER.MAX_ITER", 20]
    words += ["SOLVER.CHECKPOINT_PERIOD", 10, "INPUT.MAX_UNREADABLE", 60]
    results = main(arguments("--config-file", config, *words, "DATALOADER.NUM_WORKERS", 2))
    folder = tmp_path / "pretrain"
    # Noise of sigma 0.48 times a standard deviation of about 57.6 grey levels.
    expected = 20 * np.log10(255 / (0.48 * 57.6))
    assert results["denoising"]["psnr_noisy"] == pytest.approx(expected, abs=0.1)
    assert 0.5 < metrics(folder)[0]["total_loss"] < 3
    log = (folder / "log.txt").read_text()
    assert "of 3 images of images:" in log
    assert len(set(re.findall(r"skipped: image \S+/hole\.mp4\S+#(\d+) cannot be read", log))) > 5
    for name in ("cut.avi ends after", "none.mp4 cannot be read"):
        assert name in log

    # Interrupted, and resumed with other workers.
    interrupted = tmp_path / "interrupted"
    interrupted.mkdir()
    shutil.copy(folder / "model_0000009.pth", interrupted)
    (interrupted / "last_checkpoint").write_text("model_0000009.pth")
    main(arguments("--config-file", config, "--resume", *words, "OUTPUT_DIR", interrupted))
    pretrained, resumed = weights(folder), weights(interrupted)
    assert pretrained.keys() == resumed.keys()
    assert all(torch.equal(pretrained[name], resumed[name]) for name in pretrained)

    cfg = load_config(
        write_config(
            tmp_path,
            "video",
            MODEL__META_ARCHITECTURE="VideoMaskFormer",
            MODEL__DEVICE="cpu",
            MODEL__SEM_SEG_HEAD={"NUM_CLASSES": 4},
            MODEL__MASK_FORMER={
                "TRANSFORMER_DECODER_NAME": "VideoMultiScaleMaskedTransformerDecoder"
            },
        )
    )
    model = build_model(cfg)
    checkpointer = Checkpointer(model)
    path = str(folder / "model_final.pth")
    checkpointer.load(path, checkpointables=[], transfer=cfg.MODEL.DDEP.TRANSFER)
    report = checkpointer.report
    assert {group_of(name) for name in report.new} == {"predictor"}
    assert report.mismatched == {}
    assert {group_of(name) for name in report.unused} == {"denoising_head"}
    found = model.state_dict()
    kept = {name for name in pretrained if group_of(name) != "denoising_head"}
    assert set(report.loaded) == kept
    assert any(name.startswith("sem_seg_head.pixel_decoder.") for name in kept)
    assert all(torch.equal(found[name], pretrained[name]) for name in kept)
