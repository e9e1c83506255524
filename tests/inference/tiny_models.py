"""Folders of runs with small models of random weights, as training would have written them."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.modeling import build_model

from ddep.tasks import load_config


def write_run(folder: Path, config: str, *overrides: object) -> Path:
    """Write config.yaml, model_final.pth and last_checkpoint of a random model into ``folder``."""
    words = ["MODEL.DEVICE", "cpu", *map(str, overrides)]
    cfg = load_config(config, words)
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = build_model(cfg)
    # Random queries score much alike; with larger weights the classes of an image differ.
    for name, parameter in model.named_parameters():
        if name.endswith("class_embed.weight"):
            parameter.data.mul_(10)
    torch.save({"model": model.state_dict()}, folder / "model_final.pth")
    (folder / "last_checkpoint").write_text("model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    return folder
