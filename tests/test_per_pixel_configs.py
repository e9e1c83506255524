"""Configs like those of MaskFormer's per-pixel baselines load, and build their models.

MaskFormer has them for ADE20K, ADE20K-full and COCO-Stuff 10k.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from ddep.tasks import load_config
from tests.mask2former_configs import resnet_keys, write
from tests.mask2former_parameters import Shapes, resnet

HEADS = ("PerPixelBaselineHead", "PerPixelBaselinePlusHead")


@dataclass(frozen=True)
class Published:
    """The values in which the configs of data sets differ."""

    train: str
    test: str
    classes: int
    ignore: int
    batch: int
    iterations: int
    side: int


PUBLISHED = {
    "ade20k": Published("ade20k_sem_seg_train", "ade20k_sem_seg_val", 150, 255, 16, 160000, 512),
    "ade20k-full": Published(
        "ade20k_full_sem_seg_train", "ade20k_full_sem_seg_val", 847, 65535, 16, 200000, 512
    ),
    "coco-stuff-10k": Published(
        *("coco_2017_train_stuff_10k_sem_seg", "coco_2017_test_stuff_10k_sem_seg"),
        *(171, 255, 32, 60000, 640),
    ),
}


def base_keys(published: Published) -> dict[str, Any]:
    side = published.side
    return {
        "MODEL": {
            "BACKBONE": {"FREEZE_AT": 0, "NAME": "build_resnet_backbone"},
            "WEIGHTS": "detectron2://ImageNetPretrained/torchvision/R-50.pkl",
            "PIXEL_MEAN": [123.675, 116.280, 103.530],
            "PIXEL_STD": [58.395, 57.120, 57.375],
            "RESNETS": resnet_keys(50, "FrozenBN"),
        },
        "DATASETS": {"TRAIN": f'("{published.train}",)', "TEST": f'("{published.test}",)'},
        "SOLVER": {
            "IMS_PER_BATCH": published.batch,
            "BASE_LR": 0.0001,
            "MAX_ITER": published.iterations,
            "WARMUP_FACTOR": 1.0,
            "WARMUP_ITERS": 0,
            "WEIGHT_DECAY": 0.0001,
            "OPTIMIZER": "ADAMW",
            "LR_SCHEDULER_NAME": "WarmupPolyLR",
            "BACKBONE_MULTIPLIER": 0.1,
            "CLIP_GRADIENTS": {
                "ENABLED": True,
                "CLIP_TYPE": "full_model",
                "CLIP_VALUE": 0.01,
                "NORM_TYPE": 2.0,
            },
        },
        "INPUT": {
            "MIN_SIZE_TRAIN": "SIZES",
            "MIN_SIZE_TRAIN_SAMPLING": "choice",
            "MIN_SIZE_TEST": side,
            "MAX_SIZE_TRAIN": 4 * side,
            "MAX_SIZE_TEST": 4 * side,
            "CROP": {
                "ENABLED": True,
                "TYPE": "absolute",
                "SIZE": f"({side}, {side})",
                "SINGLE_CATEGORY_MAX_AREA": 1.0,
            },
            "COLOR_AUG_SSD": True,
            "SIZE_DIVISIBILITY": side,
            "FORMAT": "RGB",
            "DATASET_MAPPER_NAME": "mask_former_semantic",
        },
        "TEST": {"EVAL_PERIOD": 5000},
        "DATALOADER": {"FILTER_EMPTY_ANNOTATIONS": True, "NUM_WORKERS": 4},
        "VERSION": 2,
    }


def head_keys(published: Published, head: str) -> dict[str, Any]:
    keys: dict[str, Any] = {
        "META_ARCHITECTURE": "SemanticSegmentor",
        "SEM_SEG_HEAD": {
            "NAME": head,
            "IN_FEATURES": ["res2", "res3", "res4", "res5"],
            "IGNORE_VALUE": published.ignore,
            "NUM_CLASSES": published.classes,
            "COMMON_STRIDE": 4,
            "LOSS_WEIGHT": 1.0,
            "CONVS_DIM": 256,
            "MASK_DIM": 256,
            "NORM": "GN",
        },
    }
    if head == HEADS[1]:
        keys["MASK_FORMER"] = {
            "TRANSFORMER_IN_FEATURE": "res5",
            "DEEP_SUPERVISION": True,
            "HIDDEN_DIM": 256,
            "NUM_OBJECT_QUERIES": published.classes,
            "NHEADS": 8,
            "DROPOUT": 0.1,
            "DIM_FEEDFORWARD": 2048,
            "ENC_LAYERS": 0,
            "DEC_LAYERS": 6,
            "PRE_NORM": False,
        }
    return {"MODEL": keys}


def load(folder: Path, published: Published, head: str) -> CfgNode:
    write(folder / "Base.yaml", base_keys(published), published.side)
    keys = {"_BASE_": "Base.yaml", **head_keys(published, head)}
    return load_config(str(write(folder / "head.yaml", keys)))


def pair(name: str, outputs: int, *inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}


def pixel_decoder() -> Shapes:
    """An FPN on res2 to res5, numbered from fine to coarse."""
    shapes = pair("mask_features", 256, 256, 3, 3)
    for number, channels in enumerate([256, 512, 1024, 2048], start=1):
        top = number == 4
        inputs = channels if top else 256
        shapes[f"layer_{number}.weight"] = (256, inputs, 3, 3)
        shapes |= pair(f"layer_{number}.norm", 256)
        if not top:
            shapes[f"adapter_{number}.weight"] = (256, channels, 1, 1)
            shapes |= pair(f"adapter_{number}.norm", 256)
    return shapes


def transformer_decoder(queries: int) -> Shapes:
    """MaskFormer's, without a linear layer for classes."""
    shapes: Shapes = {"query_embed.weight": (queries, 256)}
    shapes |= pair("input_proj", 256, 2048, 1, 1) | pair("transformer.decoder.norm", 256)
    for index in range(3):
        shapes |= pair(f"mask_embed.layers.{index}", 256, 256)
    for index in range(6):
        layer = f"transformer.decoder.layers.{index}."
        for name in ("self_attn", "multihead_attn"):
            shapes[f"{layer}{name}.in_proj_weight"] = (768, 256)
            shapes[f"{layer}{name}.in_proj_bias"] = (768,)
            shapes |= pair(f"{layer}{name}.out_proj", 256, 256)
        shapes |= pair(f"{layer}linear1", 2048, 256) | pair(f"{layer}linear2", 256, 2048)
        for number in (1, 2, 3):
            shapes |= pair(f"{layer}norm{number}", 256)
    return shapes


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", PUBLISHED)
def test_config_builds_the_model_of_the_checkpoint(tmp_path: Path, name: str, head: str) -> None:
    published = PUBLISHED[name]
    cfg = load(tmp_path, published, head)
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    if head == HEADS[0]:
        predictor = pair("predictor", published.classes, 256, 1, 1)
    else:
        decoder = transformer_decoder(published.classes)
        predictor = {f"predictor.{key}": shape for key, shape in decoder.items()}
    expected = resnet([3, 4, 6, 3], frozen=True)
    expected |= {f"sem_seg_head.pixel_decoder.{k}": shape for k, shape in pixel_decoder().items()}
    expected |= {f"sem_seg_head.{key}": shape for key, shape in predictor.items()}
    assert {key: tuple(v.shape) for key, v in model.state_dict().items()} == expected
