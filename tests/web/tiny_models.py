"""Runs of the smallest models with random weights, made once for all tests of the page."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from detectron2.modeling import build_model
from PIL import Image

from ddep.tasks import load_config
from tests.engine.tiny_runs import (
    classification_config,
    denoising_config,
    detection_config,
    per_pixel_config,
    shapes_config,
    shapes_root,
    write_images,
)


def write_runs(folder: Path) -> Path:
    """Write ``folder/runs/NAME`` for a model of each kind; its data sets are in ``datasets``.

    The folder is that of an experiment, so that the page finds the data sets.
    """
    runs = folder / "runs"
    with shapes_root(folder):
        configs = {
            "panoptic": shapes_config(folder),
            "denoising": denoising_config(folder, write_images(folder / "images")),
            "per_pixel": per_pixel_config(folder),
            "classification": classification_config(folder),
            "detection": detection_config(folder),
        }
        for name, config in configs.items():
            _write_run(runs / name, config)
    (folder / "commands.sh").touch()
    return runs


def write_image(path: Path, size: tuple[int, int] = (60, 40)) -> Path:
    """Write an image of width and height ``size``, in which a model can see something."""
    image = Image.radial_gradient("L").resize(size)
    Image.merge("RGB", (image, image.transpose(Image.Transpose.ROTATE_180), image)).save(path)
    return path


def _write_run(folder: Path, config: str) -> None:
    torch.manual_seed(0)
    cfg = load_config(config)
    cfg.MODEL.DEVICE = "cpu"
    if cfg.MODEL.META_ARCHITECTURE == "MaskFormer":
        test = cfg.MODEL.MASK_FORMER.TEST
        test.SEMANTIC_ON = test.PANOPTIC_ON = test.INSTANCE_ON = True
        # Random weights are sure of nothing.
        test.OBJECT_MASK_THRESHOLD = test.OVERLAP_THRESHOLD = 0.05
    model = build_model(cfg)
    if cfg.MODEL.META_ARCHITECTURE == "MaskFormer":
        no_object = model.sem_seg_head.predictor.class_embed
        torch.nn.init.constant_(no_object.bias[-1:], -10.0)
    os.makedirs(folder)
    (folder / "config.yaml").write_text(cfg.dump())
    torch.save({"model": model.state_dict()}, folder / "model_final.pth")
    (folder / "last_checkpoint").write_text("model_final.pth")
