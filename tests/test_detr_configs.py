"""Configs of DETR's own detectron2 project load, and build the model of its paper."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from ddep.config import get_key
from ddep.data.augmentation import build_augmentations
from ddep.tasks import load_config

# The values of d2/configs/detr_256_6_6_torchvision.yaml.
KEYS = {
    "MODEL.META_ARCHITECTURE": "Detr",
    "MODEL.WEIGHTS": "detectron2://ImageNetPretrained/torchvision/R-50.pkl",
    "MODEL.PIXEL_MEAN": [123.675, 116.280, 103.530],
    "MODEL.PIXEL_STD": [58.395, 57.120, 57.375],
    "MODEL.MASK_ON": False,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.DETR.GIOU_WEIGHT": 2.0,
    "MODEL.DETR.L1_WEIGHT": 5.0,
    "MODEL.DETR.NUM_OBJECT_QUERIES": 100,
    "DATASETS.TRAIN": "('coco_2017_train',)",
    "DATASETS.TEST": "('coco_2017_val',)",
    "SOLVER.IMS_PER_BATCH": 64,
    "SOLVER.BASE_LR": 0.0001,
    "SOLVER.STEPS": "(369600,)",
    "SOLVER.MAX_ITER": 554400,
    "SOLVER.WARMUP_FACTOR": 1.0,
    "SOLVER.WARMUP_ITERS": 10,
    "SOLVER.WEIGHT_DECAY": 0.0001,
    "SOLVER.OPTIMIZER": "ADAMW",
    "SOLVER.BACKBONE_MULTIPLIER": 0.1,
    "SOLVER.CLIP_GRADIENTS.ENABLED": True,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model",
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 0.01,
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE": 2.0,
    "INPUT.MIN_SIZE_TRAIN": "(480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)",
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "absolute_range",
    "INPUT.CROP.SIZE": "(384, 600)",
    "INPUT.FORMAT": "RGB",
    "TEST.EVAL_PERIOD": 4000,
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": False,
    "DATALOADER.NUM_WORKERS": 4,
    "VERSION": 2,
}
# DETR's repository counts 41,302,368 weights that learn, with 91 classes instead of 80.
LEARNING = 41_302_368 - (91 - 80) * 257


def published_config(folder: Path) -> CfgNode:
    nested: dict = {}
    for key, value in KEYS.items():
        node = nested
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    path = folder / "detr.yaml"
    path.write_text(yaml.safe_dump(nested))
    return load_config(str(path), ["MODEL.DEVICE", "cpu"])


def count_learning(cfg: CfgNode) -> int:
    with torch.device("meta"):
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_published_config_builds_the_published_model(tmp_path: Path) -> None:
    cfg = published_config(tmp_path)
    assert cfg.INPUT.DATASET_MAPPER_NAME == "detr_detection"
    assert count_learning(cfg) == LEARNING
    names = [type(augmentation).__name__ for augmentation in build_augmentations(cfg, True).augs]
    assert names == ["RandomFlip", "RandomApply", "ResizeShortestEdge"]


def test_the_config_for_coco_has_its_values(tmp_path: Path) -> None:
    """But for the limit of gradients, 0.1 in DETR's own repository, and decay of everything."""
    published = published_config(tmp_path)
    ours = Path(__file__).parents[1] / "configs" / "finetune" / "coco" / "detection"
    cfg = load_config(str(ours / "detr_R50.yaml"), ["MODEL.DEVICE", "cpu"])
    different = {key for key in KEYS if get_key(cfg, key) != get_key(published, key)}
    assert different == {
        "MODEL.WEIGHTS",
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
        "TEST.EVAL_PERIOD",
    }
    assert cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE == 0.1
    assert count_learning(cfg) == LEARNING
