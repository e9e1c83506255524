"""Configs like Mask2Former-video's load, and build the models of its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from ddep.tasks import load_config, task_of
from tests.mask2former_configs import (
    R50,
    R101,
    SWIN_B,
    SWIN_L,
    SWIN_S,
    SWIN_T,
    SWINS,
    Task,
    backbone_keys,
    base_keys,
    head_keys,
    write,
)
from tests.mask2former_parameters import mask2former, resnet, swin

# First step of the learning rate, and number of iterations.
SCHEDULES = {2019: (4000, 6000), 2021: (5500, 8000)}
BACKBONES = (R50, R101, SWIN_T, SWIN_S, SWIN_B, SWIN_L)


def video_task(year: int) -> Task:
    names = f"ytvis_{year}_train", f"ytvis_{year}_val"
    return Task(*names, "", 40, SCHEDULES[year][1], "INSTANCE", BACKBONES, eval_period=0)


def load(folder: Path, year: int, backbone: str) -> CfgNode:
    """The config of one data set and backbone: files on top of each other, as Mask2Former's."""
    task = video_task(year)
    base = base_keys(task)
    base["SOLVER"]["STEPS"] = f"({SCHEDULES[year][0]},)"
    base["MODEL"]["MASK_ON"] = True
    base["DATALOADER"]["FILTER_EMPTY_ANNOTATIONS"] = False
    # Neither mapper nor large-scale jitter.
    base["INPUT"] = {
        "FORMAT": "RGB",
        "MIN_SIZE_TRAIN_SAMPLING": "choice_by_clip",
        "RANDOM_FLIP": "flip_by_clip",
        "AUGMENTATIONS": [],
        "MIN_SIZE_TRAIN": "(360, 480)",
        "MIN_SIZE_TEST": 360,
        "CROP": {"ENABLED": False, "TYPE": "absolute_range", "SIZE": "(600, 720)"},
    }
    head = head_keys(task)
    head["MODEL"]["META_ARCHITECTURE"] = "VideoMaskFormer"
    decoder = "VideoMultiScaleMaskedTransformerDecoder"
    head["MODEL"]["MASK_FORMER"]["TRANSFORMER_DECODER_NAME"] = decoder
    head["MODEL"]["WEIGHTS"] = "model_final_3c8ec9.pkl"
    write(folder / "Base.yaml", base)
    path = write(folder / "R50.yaml", {"_BASE_": "Base.yaml", **head})
    if backbone != R50:
        keys: dict[str, Any] = {"_BASE_": "../R50.yaml", **backbone_keys(backbone, task)}
        if backbone in SWINS and (year, backbone) != (2021, SWIN_L):
            keys["INPUT"] = {"MIN_SIZE_TEST": 480}
        path = write(folder / "other" / "backbone.yaml", keys)
    return load_config(str(path))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("year", SCHEDULES)
def test_config_builds_the_model_of_the_checkpoint(
    tmp_path: Path, year: int, backbone: str
) -> None:
    """Names and shapes are those of an image model with 40 classes."""
    cfg = load(tmp_path, year, backbone)
    if backbone in SWINS:
        embed_dim, depths, heads, window, _ = SWINS[backbone]
        shapes = swin(embed_dim, depths, [heads * 2**stage for stage in range(4)], window)
        channels = [embed_dim * 2**stage for stage in range(4)]
    else:
        shapes = resnet([3, 4, 6 if backbone == R50 else 23, 3], frozen=True)
        channels = [256, 512, 1024, 2048]
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    queries = 200 if backbone == SWIN_L else 100
    assert found == mask2former(shapes, channels, classes=40, queries=queries)
    assert model.max_detections == 10


@pytest.mark.parametrize("year", SCHEDULES)
def test_run_of_the_config(tmp_path: Path, year: int) -> None:
    cfg = load(tmp_path, year, R50)
    task_of(cfg).check(cfg)
    assert cfg.INPUT.DATASET_MAPPER_NAME == "mask_former_video_instance"
    assert (cfg.INPUT.SAMPLING_FRAME_NUM, cfg.INPUT.SAMPLING_FRAME_RANGE) == (2, 20)
    assert [measure.name for measure in task_of(cfg).measures_on(cfg, cfg.DATASETS.TEST[0])] == [
        "video_segm"
    ]


@pytest.mark.parametrize("backbone", [R50, SWIN_T, SWIN_S, SWIN_B, SWIN_L])
@pytest.mark.parametrize("year", SCHEDULES)
def test_own_configs_have_the_same_values(tmp_path: Path, year: int, backbone: str) -> None:
    theirs = load(tmp_path, year, backbone)
    ours = load_config(f"configs/finetune/youtubevis_{year}/instance/mask2former_{backbone}.yaml")
    for cfg in (theirs, ours):
        cfg.MODEL.WEIGHTS = cfg.OUTPUT_DIR = ""
        # What videos do not use, what is off, and ResNets' keys beside a Swin.
        cfg.MODEL.MASK_ON = cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON = True
        cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON = False
        cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = "absolute", [1, 1]
        if backbone in SWINS:
            cfg.MODEL.RESNETS, cfg.MODEL.BACKBONE.FREEZE_AT = CfgNode(), 0
    assert yaml.safe_load(ours.dump()) == yaml.safe_load(theirs.dump())
