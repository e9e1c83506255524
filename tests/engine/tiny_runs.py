"""Runs of ``train_net.py`` that take a second: the smallest models on a few small images."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from detectron2.engine import default_argument_parser
from PIL import Image

from ddep.data.datasets import dataset_root, register_all
from ddep.data.datasets.moving_shapes import generate_moving_shapes
from ddep.data.datasets.penn_fudan import prepare_penn_fudan
from ddep.data.datasets.shapes import generate_shapes
from tests.data.datasets.imitation_photographs import write_penn_fudan

MODEL: dict[str, Any] = {
    "MODEL": {
        "BACKBONE": {"NAME": "D2SwinTransformer"},
        "SWIN": {
            "EMBED_DIM": 8,
            "DEPTHS": [1, 1, 1, 1],
            "NUM_HEADS": [1, 1, 2, 2],
            "WINDOW_SIZE": 2,
            "DROP_PATH_RATE": 0.0,
        },
        "SEM_SEG_HEAD": {
            "NAME": "MaskFormerHead",
            "IN_FEATURES": ["res2", "res3", "res4", "res5"],
            "CONVS_DIM": 32,
            "MASK_DIM": 32,
            "NORM": "GN",
            "PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
            "TRANSFORMER_ENC_LAYERS": 1,
        },
        "MASK_FORMER": {
            "TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
            "HIDDEN_DIM": 32,
            "NHEADS": 4,
            "DIM_FEEDFORWARD": 32,
            "DEC_LAYERS": 2,
            "DROPOUT": 0.0,
            "NUM_OBJECT_QUERIES": 5,
            "TRAIN_NUM_POINTS": 32,
        },
        "DDEP": {"FREEZE_BACKBONE": False},
        "PIXEL_MEAN": [123.675, 116.280, 103.530],
        "PIXEL_STD": [58.395, 57.120, 57.375],
    },
    "INPUT": {"FORMAT": "RGB", "MIN_SIZE_TRAIN": [48], "MIN_SIZE_TEST": 48},
    "SOLVER": {
        "OPTIMIZER": "ADAMW",
        "BASE_LR": 0.001,
        "IMS_PER_BATCH": 2,
        "MAX_ITER": 6,
        "LR_SCHEDULER_NAME": "WarmupCosineLR",
        "WARMUP_ITERS": 2,
        "CLIP_GRADIENTS": {"ENABLED": True, "CLIP_TYPE": "full_model", "CLIP_VALUE": 1.0},
    },
    "DATALOADER": {"NUM_WORKERS": 0},
    "SEED": 3,
    "VERSION": 2,
}


# Keys of runs in which everything draws random numbers or has a state.
STATEFUL: dict[str, Any] = {
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.ACCUMULATION_STEPS": 2,
    "SOLVER.EMA.ENABLED": True,
    "MODEL.SWIN.DROP_PATH_RATE": 0.3,
    "MODEL.MASK_FORMER.DROPOUT": 0.2,
    "INPUT.COLOR_AUG_SSD": True,
    "INPUT.MIN_SIZE_TRAIN": "(40,48,56)",
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Run the tests of a module that imports this on one thread: more wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_config(folder: Path, name: str, **keys: Any) -> str:
    """Write the tiny model's config into ``folder``, MODEL__DEVICE="cpu" and such on top."""
    base = folder / "tiny.yaml"
    base.write_text(yaml.safe_dump(MODEL))
    config: dict[str, Any] = {"_BASE_": str(base)}
    for key, value in keys.items():
        node = config
        *parents, last = key.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def denoising_config(folder: Path, images: Path) -> str:
    """A config that pretrains and evaluates by denoising the folder ``images``."""
    return write_config(
        folder,
        "denoising",
        MODEL__META_ARCHITECTURE="DenoisingPretrainer",
        DATASETS__TRAIN=[f"images:{images}"],
        DATASETS__TEST=[f"images:{images}"],
        INPUT__DATASET_MAPPER_NAME="ddep_denoising",
        INPUT__CROP={"ENABLED": True, "TYPE": "absolute", "SIZE": [40, 40]},
        OUTPUT_DIR=str(folder / "pretrain"),
    )


def shapes_config(folder: Path, pixel_decoder: str = "MSDeformAttnPixelDecoder") -> str:
    """A config that fine-tunes for panoptic segmentation on generated shapes, in ``folder``.

    They lie below ``folder/datasets``; see :func:`shapes_root`.
    """
    head = {"NUM_CLASSES": 8, "PIXEL_DECODER_NAME": pixel_decoder}
    masked = pixel_decoder == "MSDeformAttnPixelDecoder"
    feature = "multi_scale_pixel_decoder" if masked else "transformer_encoder"
    return write_config(
        folder,
        "shapes",
        MODEL__META_ARCHITECTURE="MaskFormer",
        MODEL__SEM_SEG_HEAD=head,
        MODEL__MASK_FORMER={"TRANSFORMER_IN_FEATURE": feature, "TEST": {"PANOPTIC_ON": True}},
        DATASETS__TRAIN=["shapes_panoptic_train"],
        DATASETS__TEST=["shapes_panoptic_val"],
        INPUT__DATASET_MAPPER_NAME="mask_former_panoptic",
        OUTPUT_DIR=str(folder / "finetune"),
    )


# detectron2's ResNet-50 with few channels, whose batch norms have a state.
SMALL_RESNET: dict[str, Any] = {
    "STEM_TYPE": "basic",
    "STEM_OUT_CHANNELS": 8,
    "RES2_OUT_CHANNELS": 8,
    "WIDTH_PER_GROUP": 4,
    "OUT_FEATURES": ["res2", "res5"],
    "RES5_DILATION": 2,
    "NORM": "BN",
}


def per_pixel_config(folder: Path, head: str = "PerPixelBaselineHead") -> str:
    """A config that classifies the pixels of generated shapes, see :func:`shapes_root`.

    Args:
        folder: to write to.
        head: ``PerPixelBaselineHead``, or ``DeepLabV3PlusHead`` with a backbone of its kind.
    """
    keys: dict[str, Any] = {"MODEL__SEM_SEG_HEAD": {"NAME": head, "NUM_CLASSES": 8}}
    if head == "DeepLabV3PlusHead":
        features = SMALL_RESNET["OUT_FEATURES"]
        keys["MODEL__SEM_SEG_HEAD"] |= {"IN_FEATURES": features, "ASPP_CHANNELS": 32, "NORM": "BN"}
        keys["MODEL__BACKBONE"] = {"NAME": "build_resnet_deeplab_backbone", "FREEZE_AT": 0}
        keys["MODEL__RESNETS"] = SMALL_RESNET
    return write_config(
        folder,
        "per_pixel",
        MODEL__META_ARCHITECTURE="SemanticSegmentor",
        DATASETS__TRAIN=["shapes_panoptic_train"],
        DATASETS__TEST=["shapes_panoptic_val"],
        OUTPUT_DIR=str(folder / "finetune"),
        **keys,
    )


def classification_config(folder: Path) -> str:
    """A config that tells which classes generated shapes show, see :func:`shapes_root`."""
    return write_config(
        folder,
        "classification",
        MODEL__META_ARCHITECTURE="ImageClassifier",
        MODEL__CLASSIFIER={"NUM_CLASSES": 8, "MULTI_LABEL": True},
        DATASETS__TRAIN=["shapes_classes_train"],
        DATASETS__TEST=["shapes_classes_val"],
        INPUT__RANDOM_RESIZED_CROP={"SIZE": 40, "SCALE": [0.5, 1.0]},
        INPUT__CENTER_CROP_TEST=40,
        OUTPUT_DIR=str(folder / "classification"),
    )


def detection_config(folder: Path) -> str:
    """A config of a small Mask R-CNN that finds people in ten images, written to ``folder``.

    They are Penn-Fudan inside :func:`shapes_root`.
    """
    people = write_penn_fudan(folder / "datasets" / "penn_fudan")
    prepare_penn_fudan(people, people)
    stages = ["res2", "res3", "res4", "res5"]
    pooling = {"POOLER_TYPE": "ROIAlign", "POOLER_SAMPLING_RATIO": 1}
    return write_config(
        folder,
        "detection",
        MODEL__META_ARCHITECTURE="GeneralizedRCNN",
        MODEL__MASK_ON=True,
        MODEL__BACKBONE={"NAME": "build_resnet_fpn_backbone", "FREEZE_AT": 0},
        MODEL__RESNETS=SMALL_RESNET | {"OUT_FEATURES": stages, "RES5_DILATION": 1},
        MODEL__FPN={"IN_FEATURES": stages, "OUT_CHANNELS": 32},
        MODEL__ANCHOR_GENERATOR__SIZES=[[8], [16], [32], [64], [128]],
        MODEL__RPN={
            "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
            "PRE_NMS_TOPK_TRAIN": 100,
            "POST_NMS_TOPK_TRAIN": 50,
            "PRE_NMS_TOPK_TEST": 100,
            "POST_NMS_TOPK_TEST": 20,
        },
        MODEL__ROI_HEADS={
            "NAME": "StandardROIHeads",
            "IN_FEATURES": ["p2", "p3", "p4", "p5"],
            "NUM_CLASSES": 1,
            "BATCH_SIZE_PER_IMAGE": 16,
        },
        MODEL__ROI_BOX_HEAD=pooling
        | {"NAME": "FastRCNNConvFCHead", "NUM_FC": 1, "FC_DIM": 32, "POOLER_RESOLUTION": 7},
        MODEL__ROI_MASK_HEAD=pooling
        | {
            "NAME": "MaskRCNNConvUpsampleHead",
            "NUM_CONV": 1,
            "CONV_DIM": 32,
            "POOLER_RESOLUTION": 7,
        },
        DATASETS__TRAIN=["penn_fudan_instance_train"],
        DATASETS__TEST=["penn_fudan_instance_val"],
        INPUT__MASK_FORMAT="bitmask",
        SOLVER__OPTIMIZER="SGD",
        OUTPUT_DIR=str(folder / "detection"),
    )


def video_config(folder: Path) -> str:
    """A config that follows shapes through generated videos, clip by clip, written to ``folder``.

    They are moving shapes inside :func:`shapes_root`.
    """
    decoder = "VideoMultiScaleMaskedTransformerDecoder"
    return _moving_shapes_config(folder, "VideoMaskFormer", decoder)


def trackformer_config(folder: Path) -> str:
    """As :func:`video_config`, by track queries."""
    return _moving_shapes_config(folder, "TrackFormer", "MultiScaleMaskedTransformerDecoder")


def _moving_shapes_config(folder: Path, meta_architecture: str, decoder: str) -> str:
    videos = folder / "datasets" / "moving_shapes"
    generate_moving_shapes(videos, train=5, val=2, frames=5, size=48)
    return write_config(
        folder,
        "video",
        MODEL__META_ARCHITECTURE=meta_architecture,
        MODEL__SEM_SEG_HEAD={"NUM_CLASSES": 4},
        MODEL__MASK_FORMER={"TRANSFORMER_DECODER_NAME": decoder},
        DATASETS__TRAIN=["moving_shapes_train"],
        DATASETS__TEST=["moving_shapes_val"],
        INPUT__MIN_SIZE_TRAIN_SAMPLING="choice_by_clip",
        INPUT__RANDOM_FLIP="flip_by_clip",
        OUTPUT_DIR=str(folder / "video"),
    )


def detr_config(folder: Path) -> str:
    """A config of a small DETR that finds generated shapes, see :func:`shapes_root`."""
    return write_config(
        folder,
        "detr",
        MODEL__META_ARCHITECTURE="Detr",
        MODEL__DETR={
            "NUM_CLASSES": 4,
            "HIDDEN_DIM": 32,
            "NHEADS": 4,
            "DIM_FEEDFORWARD": 32,
            "ENC_LAYERS": 1,
            "DEC_LAYERS": 2,
            "NUM_OBJECT_QUERIES": 5,
        },
        DATASETS__TRAIN=["shapes_instance_train"],
        DATASETS__TEST=["shapes_instance_val"],
        INPUT__CROP={"ENABLED": True, "TYPE": "absolute_range", "SIZE": [384, 600]},
        OUTPUT_DIR=str(folder / "detr"),
    )


@contextlib.contextmanager
def shapes_root(folder: Path, train: int = 7, size: int = 48) -> Iterator[None]:
    """Inside, a few generated shapes below ``folder/datasets`` are the shapes data sets.

    Args:
        folder: to write to.
        train: number of training images.
        size: height and width of all images, pixels.
    """
    usual = dataset_root()
    shapes = folder / "datasets" / "shapes"
    generate_shapes(shapes, train=train, val=2, unlabelled=1, subjects=3, size=size)
    register_all(folder / "datasets")
    try:
        yield
    finally:
        register_all(usual)


def write_images(folder: Path, number: int = 3) -> Path:
    """Write ``number`` coloured images of about 40 pixels' side."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.random.default_rng(0)
    for index in range(number):
        pixels = numbers.integers(0, 255, (40, 36 + index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def arguments(*words: object) -> argparse.Namespace:
    """What train_net.py makes of its command line."""
    return default_argument_parser().parse_args([str(word) for word in words])


def metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of metrics.json in a run's folder."""
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
