"""The keys and values of Mask2Former's configs.

Mask2Former has a config for each entry of ``CONFIGS``: a base with ResNet-50, data and schedule,
one on top of it with the head, and others on top of that with other backbones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from ddep.tasks import load_config

R50, R101 = "R50", "R101"
SWIN_T, SWIN_S, SWIN_B, SWIN_L = "swin_tiny", "swin_small", "swin_base", "swin_large"
# Channels of the stem, depths, heads of the first stage, window, file of the weights.
SWINS = {
    SWIN_T: (96, [2, 2, 6, 2], 3, 7, "swin_tiny_patch4_window7_224.pkl"),
    SWIN_S: (96, [2, 2, 18, 2], 3, 7, "swin_small_patch4_window7_224.pkl"),
    SWIN_B: (128, [2, 2, 18, 2], 4, 12, "swin_base_patch4_window12_384_22k.pkl"),
    SWIN_L: (192, [2, 2, 18, 2], 6, 12, "swin_large_patch4_window12_384_22k.pkl"),
}


@dataclass(frozen=True)
class Task:
    """The common values of the configs of one data set and task.

    ``side`` is that of the shortest edge, ``crop`` height and width; None is large-scale jitter.
    """

    train: str
    test: str
    mapper: str
    classes: int
    iterations: int
    switched_on: str
    backbones: tuple[str, ...]
    side: int | None = None
    crop: tuple[int, int] = (0, 0)
    padded_to: int = -1
    ignore: int = 255
    norm: str = "FrozenBN"
    object_threshold: float = 0.8
    eval_period: int = 5000


def _coco(train: str, test: str, mapper: str, classes: int, switched_on: str) -> Task:
    backbones = (R50, R101, SWIN_T, SWIN_S, SWIN_B, SWIN_L)
    return Task(train, test, mapper, classes, 368750, switched_on, backbones)


def _ade(task: str, mapper: str, classes: int, on: str, side: int, *backbones: str) -> Task:
    train, test = f"ade20k_{task}_train", f"ade20k_{task}_val"
    crop = side, side
    return Task(train, test, mapper, classes, 160000, on, backbones, side, crop, padded_to=side)


def _cityscapes(task: str, mapper: str, classes: int, switched_on: str) -> Task:
    train, test = f"cityscapes_fine_{task}_train", f"cityscapes_fine_{task}_val"
    backbones = (R50, R101, SWIN_T, SWIN_S, SWIN_B, SWIN_L)
    return Task(
        *(train, test, mapper, classes, 90000, switched_on, backbones),
        side=1024,
        crop=(512, 1024),
        norm="SyncBN",
    )


def _mapillary(task: str, mapper: str, switched_on: str) -> Task:
    return Task(
        *(f"mapillary_vistas_{task}_train", f"mapillary_vistas_{task}_val", mapper, 65, 300000),
        switched_on,
        (R50, SWIN_L),
        side=2048,
        crop=(1024, 1024),
        padded_to=1024,
        ignore=65,
        object_threshold=0.0,
        eval_period=0,
    )


ALL, SEMANTIC, INSTANCE = "SEMANTIC INSTANCE PANOPTIC", "SEMANTIC", "INSTANCE"
TASKS = {
    "coco-panoptic": _coco(
        "coco_2017_train_panoptic",
        "coco_2017_val_panoptic_with_sem_seg",
        "coco_panoptic_lsj",
        133,
        ALL,
    ),
    "coco-instance": _coco("coco_2017_train", "coco_2017_val", "coco_instance_lsj", 80, INSTANCE),
    "ade20k-panoptic": _ade("panoptic", "mask_former_panoptic", 150, ALL, 640, R50, SWIN_L),
    "ade20k-instance": _ade("instance", "mask_former_instance", 100, ALL, 640, R50, SWIN_L),
    "ade20k-semantic-512": _ade(
        *("sem_seg", "mask_former_semantic", 150, SEMANTIC, 512, R50, R101, SWIN_T, SWIN_S)
    ),
    "ade20k-semantic-640": _ade(
        "sem_seg", "mask_former_semantic", 150, SEMANTIC, 640, SWIN_B, SWIN_L
    ),
    "cityscapes-panoptic": _cityscapes("panoptic", "mask_former_panoptic", 19, ALL),
    "cityscapes-instance": _cityscapes("instance_seg", "mask_former_instance", 8, INSTANCE),
    "cityscapes-semantic": _cityscapes("sem_seg", "mask_former_semantic", 19, SEMANTIC),
    "mapillary-panoptic": _mapillary("panoptic", "mask_former_panoptic", "SEMANTIC PANOPTIC"),
    "mapillary-semantic": _mapillary("sem_seg", "mask_former_semantic", SEMANTIC),
}
CONFIGS = [(name, backbone) for name, task in TASKS.items() for backbone in task.backbones]


def queries(task: Task, backbone: str) -> int:
    """Swin-L has 200 queries, except for semantic segmentation."""
    return 200 if backbone == SWIN_L and task.switched_on != SEMANTIC else 100


def base_keys(task: Task) -> dict[str, Any]:
    """Data, schedule and ResNet-50."""
    keys: dict[str, Any] = {
        "MODEL": {
            "BACKBONE": {"FREEZE_AT": 0, "NAME": "build_resnet_backbone"},
            "WEIGHTS": "detectron2://ImageNetPretrained/torchvision/R-50.pkl",
            "PIXEL_MEAN": [123.675, 116.280, 103.530],
            "PIXEL_STD": [58.395, 57.120, 57.375],
            "RESNETS": resnet_keys(50, task.norm),
        },
        "DATASETS": {"TRAIN": f'("{task.train}",)', "TEST": f'("{task.test}",)'},
        "SOLVER": {
            "IMS_PER_BATCH": 16,
            "BASE_LR": 0.0001,
            "MAX_ITER": task.iterations,
            "WARMUP_FACTOR": 1.0,
            "WARMUP_ITERS": 0 if task.side else 10,
            "WEIGHT_DECAY": 0.05,
            "OPTIMIZER": "ADAMW",
            "BACKBONE_MULTIPLIER": 0.1,
            "CLIP_GRADIENTS": {
                "ENABLED": True,
                "CLIP_TYPE": "full_model",
                "CLIP_VALUE": 0.01,
                "NORM_TYPE": 2.0,
            },
            "AMP": {"ENABLED": True},
        },
        "INPUT": {"FORMAT": "RGB", "DATASET_MAPPER_NAME": task.mapper},
        "TEST": {"EVAL_PERIOD": task.eval_period},
        "DATALOADER": {"FILTER_EMPTY_ANNOTATIONS": True, "NUM_WORKERS": 4},
        "VERSION": 2,
    }
    if task.side is None:
        keys["SOLVER"]["STEPS"] = "(327778, 355092)"
        keys["INPUT"].update(IMAGE_SIZE=1024, MIN_SCALE=0.1, MAX_SCALE=2.0)
        return keys
    keys["SOLVER"]["LR_SCHEDULER_NAME"] = "WarmupPolyLR"
    keys["INPUT"].update(
        MIN_SIZE_TRAIN="SIZES",
        MIN_SIZE_TRAIN_SAMPLING="choice",
        MIN_SIZE_TEST=task.side,
        MAX_SIZE_TRAIN=4 * task.side,
        MAX_SIZE_TEST=2048 if task.side > 640 else 4 * task.side,
        CROP={
            "ENABLED": True,
            "TYPE": "absolute",
            "SIZE": f"({task.crop[0]}, {task.crop[1]})",
            "SINGLE_CATEGORY_MAX_AREA": 1.0,
        },
        COLOR_AUG_SSD=True,
        SIZE_DIVISIBILITY=task.padded_to,
    )
    sizes = [task.side // 2 + i * task.side // 4 for i in range(6)]
    keys["TEST"]["AUG"] = {"ENABLED": False, "MIN_SIZES": sizes, "MAX_SIZE": 4096, "FLIP": True}
    return keys


def resnet_keys(depth: int, norm: str) -> dict[str, Any]:
    return {
        "DEPTH": depth,
        "STEM_TYPE": "basic",
        "STEM_OUT_CHANNELS": 64,
        "STRIDE_IN_1X1": False,
        "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "RES5_MULTI_GRID": [1, 1, 1],
        **({} if norm == "FrozenBN" else {"NORM": norm}),
    }


def head_keys(task: Task) -> dict[str, Any]:
    """The model without its backbone."""
    return {
        "MODEL": {
            "META_ARCHITECTURE": "MaskFormer",
            "SEM_SEG_HEAD": {
                "NAME": "MaskFormerHead",
                "IGNORE_VALUE": task.ignore,
                "NUM_CLASSES": task.classes,
                "LOSS_WEIGHT": 1.0,
                "CONVS_DIM": 256,
                "MASK_DIM": 256,
                "NORM": "GN",
                "PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
                "IN_FEATURES": ["res2", "res3", "res4", "res5"],
                "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res3", "res4", "res5"],
                "COMMON_STRIDE": 4,
                "TRANSFORMER_ENC_LAYERS": 6,
            },
            "MASK_FORMER": {
                "TRANSFORMER_DECODER_NAME": "MultiScaleMaskedTransformerDecoder",
                "TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
                "DEEP_SUPERVISION": True,
                "NO_OBJECT_WEIGHT": 0.1,
                "CLASS_WEIGHT": 2.0,
                "MASK_WEIGHT": 5.0,
                "DICE_WEIGHT": 5.0,
                "HIDDEN_DIM": 256,
                "NUM_OBJECT_QUERIES": 100,
                "NHEADS": 8,
                "DROPOUT": 0.0,
                "DIM_FEEDFORWARD": 2048,
                "ENC_LAYERS": 0,
                "PRE_NORM": False,
                "ENFORCE_INPUT_PROJ": False,
                "SIZE_DIVISIBILITY": 32,
                "DEC_LAYERS": 10,
                "TRAIN_NUM_POINTS": 12544,
                "OVERSAMPLE_RATIO": 3.0,
                "IMPORTANCE_SAMPLE_RATIO": 0.75,
                "TEST": {
                    **{
                        f"{task_name}_ON": task_name in task.switched_on.split()
                        for task_name in ALL.split()
                    },
                    "OVERLAP_THRESHOLD": 0.8,
                    "OBJECT_MASK_THRESHOLD": task.object_threshold,
                },
            },
        }
    }


def backbone_keys(name: str, task: Task) -> dict[str, Any]:
    """A backbone other than ResNet-50."""
    if name == R101:
        # Of the ADE20K configs, this alone has synchronised batch norm.
        norm = "SyncBN" if task.train.startswith("ade20k") else task.norm
        return {"MODEL": {"WEIGHTS": "R-101.pkl", "RESNETS": resnet_keys(101, norm)}}
    embed_dim, depths, heads, window, weights = SWINS[name]
    keys: dict[str, Any] = {
        "BACKBONE": {"NAME": "D2SwinTransformer"},
        "SWIN": {
            "EMBED_DIM": embed_dim,
            "DEPTHS": depths,
            "NUM_HEADS": [heads * 2**stage for stage in range(4)],
            "WINDOW_SIZE": window,
            "APE": False,
            "DROP_PATH_RATE": 0.3,
            "PATCH_NORM": True,
            **({"PRETRAIN_IMG_SIZE": 384} if window == 12 else {}),
        },
        "WEIGHTS": weights,
        "MASK_FORMER": {"NUM_OBJECT_QUERIES": queries(task, name)},
    }
    return {"MODEL": keys}


def write(path: Path, keys: dict[str, Any], side: int | None = None) -> Path:
    """Write a config; the list of training sizes is a call in Python, as in Mask2Former's files."""
    call = f'!!python/object/apply:eval ["[int(x * 0.1 * {side}) for x in range(5, 21)]"]'
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(keys).replace("SIZES\n", f"{call}\n"))
    return path


def load(folder: Path, task: Task, backbone: str) -> CfgNode:
    write(folder / "Base.yaml", base_keys(task), task.side)
    path = write(folder / "R50.yaml", {"_BASE_": "Base.yaml", **head_keys(task)})
    if backbone != R50:
        keys = backbone_keys(backbone, task)
        path = write(folder / "other" / "backbone.yaml", {"_BASE_": "../R50.yaml", **keys})
    return load_config(str(path))


# All keys that Mask2Former adds to detectron2's, with its defaults, but the transformer decoder's
# name, which follows from other keys here.
DEFAULTS: dict[str, Any] = {
    "INPUT": {
        "DATASET_MAPPER_NAME": "mask_former_semantic",
        "COLOR_AUG_SSD": False,
        "CROP": {"SINGLE_CATEGORY_MAX_AREA": 1.0},
        "SIZE_DIVISIBILITY": -1,
        "IMAGE_SIZE": 1024,
        "MIN_SCALE": 0.1,
        "MAX_SCALE": 2.0,
    },
    "SOLVER": {
        "WEIGHT_DECAY_EMBED": 0.0,
        "OPTIMIZER": "ADAMW",
        "BACKBONE_MULTIPLIER": 0.1,
        "POLY_LR_POWER": 0.9,
        "POLY_LR_CONSTANT_ENDING": 0.0,
    },
    "MODEL": {
        "MASK_FORMER": {
            "DEEP_SUPERVISION": True,
            "NO_OBJECT_WEIGHT": 0.1,
            "CLASS_WEIGHT": 1.0,
            "DICE_WEIGHT": 1.0,
            "MASK_WEIGHT": 20.0,
            "NHEADS": 8,
            "DROPOUT": 0.1,
            "DIM_FEEDFORWARD": 2048,
            "ENC_LAYERS": 0,
            "DEC_LAYERS": 6,
            "PRE_NORM": False,
            "HIDDEN_DIM": 256,
            "NUM_OBJECT_QUERIES": 100,
            "TRANSFORMER_IN_FEATURE": "res5",
            "ENFORCE_INPUT_PROJ": False,
            "SIZE_DIVISIBILITY": 32,
            "TRAIN_NUM_POINTS": 12544,
            "OVERSAMPLE_RATIO": 3.0,
            "IMPORTANCE_SAMPLE_RATIO": 0.75,
            "TEST": {
                "SEMANTIC_ON": True,
                "INSTANCE_ON": False,
                "PANOPTIC_ON": False,
                "OBJECT_MASK_THRESHOLD": 0.0,
                "OVERLAP_THRESHOLD": 0.0,
                "SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": False,
            },
        },
        "SEM_SEG_HEAD": {
            "MASK_DIM": 256,
            "TRANSFORMER_ENC_LAYERS": 0,
            "PIXEL_DECODER_NAME": "BasePixelDecoder",
            "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res3", "res4", "res5"],
            "DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS": 4,
            "DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS": 8,
            "LOSS_TYPE": "hard_pixel_mining",
            "PROJECT_FEATURES": ["res2"],
            "PROJECT_CHANNELS": [48],
            "ASPP_CHANNELS": 256,
            "ASPP_DILATIONS": [6, 12, 18],
            "ASPP_DROPOUT": 0.1,
            "USE_DEPTHWISE_SEPARABLE_CONV": False,
        },
        "SWIN": {
            "PRETRAIN_IMG_SIZE": 224,
            "PATCH_SIZE": 4,
            "EMBED_DIM": 96,
            "DEPTHS": [2, 2, 6, 2],
            "NUM_HEADS": [3, 6, 12, 24],
            "WINDOW_SIZE": 7,
            "MLP_RATIO": 4.0,
            "QKV_BIAS": True,
            "QK_SCALE": None,
            "DROP_RATE": 0.0,
            "ATTN_DROP_RATE": 0.0,
            "DROP_PATH_RATE": 0.3,
            "APE": False,
            "PATCH_NORM": True,
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
            "USE_CHECKPOINT": False,
        },
        "RESNETS": {"RES4_DILATION": 1, "RES5_MULTI_GRID": [1, 2, 4], "STEM_TYPE": "deeplab"},
    },
}
