"""Runs of TrackFormer, and what is checked of its configs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from ddep.checkpoint import read_checkpoint
from ddep.engine import main
from ddep.errors import UserError
from ddep.tasks import TrackFormerTask, load_config, task_of
from tests.engine.tiny_runs import (
    arguments,
    one_thread,
    shapes_root,
    trackformer_config,
    video_config,
)

__all__ = ["one_thread"]

CONFIG = "configs/demo/moving_shapes_trackformer.yaml"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.TRACKFORMER.FALSE_NEGATIVES", 1.5, "is 1.5; expected a number from 0 to 1"),
        ("MODEL.TRACKFORMER.TRACK_SCORE", -0.1, "is -0.1; expected a number from 0 to 1"),
        ("MODEL.TRACKFORMER.PATIENCE", -1, "is -1; expected 0 or more"),
        ("INPUT.SAMPLING_FRAME_NUM", 3, "is 3; .* TrackFormer trains on 2 frames"),
        (
            "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME",
            "VideoMultiScaleMaskedTransformerDecoder",
            ".* TrackFormer needs MultiScaleMaskedTransformerDecoder",
        ),
    ],
)
def test_impossible_values(key: str, value: object, message: str) -> None:
    cfg = load_config(CONFIG, [])
    task = task_of(cfg)
    assert isinstance(task, TrackFormerTask)
    assert task.check(cfg) == []
    cfg = load_config(CONFIG, [key, str(value)])
    with pytest.raises(UserError, match=f"{re.escape(key)} .*{message}"):
        task.check(cfg)


def test_pairs_are_trained_and_videos_tracked_and_drawn(tmp_path: Path) -> None:
    """From a checkpoint of clips; all but the classes that it lacks stays as it is at rate 0."""
    with shapes_root(tmp_path):
        clips = build_model(load_config(video_config(tmp_path), ["MODEL.DEVICE", "cpu"]))
        torch.save({"model": clips.state_dict()}, tmp_path / "clips.pth")
        keys = {
            "MODEL.WEIGHTS": tmp_path / "clips.pth",
            "MODEL.TRACKFORMER.DETECTION_SCORE": 0.1,
            "SOLVER.MAX_ITER": 1,
            "SOLVER.BASE_LR": 0.0,
            "TEST.CLIP.FRAMES": 1,
        }
        words = [word for pair in keys.items() for word in pair]
        results = main(arguments("--config-file", trackformer_config(tmp_path), *words))
    assert list(results) == ["video_segm", "tracking"]
    folder = tmp_path / "video"
    trained = read_checkpoint(str(folder / "model_final.pth"))["model"]
    assert trained.keys() == clips.state_dict().keys()
    assert all(torch.equal(trained[name], value) for name, value in clips.state_dict().items())
    tracks = json.loads((folder / "inference" / "results.json").read_text())
    assert tracks.keys() == {"video_segm", "tracking"}
    assert Image.open(folder / "inference" / "tracking.png").size == (2 * 4 * (336 + 4), 2 * 336)
