"""Every method with small settings, and configs of runs that take a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode

from ddep.adaptation import METHODS
from ddep.data.datasets import register_from_config
from ddep.data.pseudo_labels import PseudoLabels, SoftLabel, label_path, write_label
from ddep.device import adapt_to_device
from ddep.tasks import load_config
from tests.engine.tiny_runs import per_pixel_config, shapes_config, write_images

# Keys of each method, by name; a method with several variants has several rows, whose names go on
# after a dash.
KINDS: dict[str, dict[str, Any]] = {
    "entropy": {"MODEL.ADAPTATION.CLASS_RATIO.WEIGHT": 0.1},
    "adversarial": {"MODEL.ADAPTATION.CLASS_RATIO.WEIGHT": 0.1},
    "teacher": {"MODEL.ADAPTATION.TEACHER.THRESHOLD": 0.1},
    "sac": {"MODEL.ADAPTATION.SAC.LEAST_THRESHOLD": 0.1},
    "consistency": {"MODEL.ADAPTATION.CONSISTENCY.THRESHOLD": 0.1},
    "prototypes": {"MODEL.ADAPTATION.PROTOTYPES.MOMENTUM": 0.5},
    "distillation": {"MODEL.ADAPTATION.DISTILLATION.THRESHOLD": 0.1},
}
# Crops of one size, so that parts of a batch are padded alike; the target's images are larger.
COMMON: dict[str, Any] = {
    "INPUT.CROP.ENABLED": True,
    "INPUT.CROP.TYPE": "absolute",
    "INPUT.CROP.SIZE": "(40,40)",
    "INPUT.MIN_SIZE_TRAIN": "(48,)",
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.TARGET_IMS_PER_BATCH": 8,
    "SOLVER.EMA.ENABLED": True,
    "SOLVER.EMA.DECAY": 0.5,
}


def settings(kind: str) -> dict[str, Any]:
    """The keys that turn a tiny run's config into one that adapts."""
    return COMMON | {"MODEL.ADAPTATION.METHOD": kind.split("-")[0]} | KINDS[kind]


def target_folder(folder: Path) -> Path:
    """Seven small images of random numbers in ``folder/target``."""
    return write_images(folder / "target", 7)


def write_pseudo_labels(folder: Path, images: Path) -> Path:
    """Random pseudo-labels and prototypes for the tiny models, in ``folder/pseudo_labels``."""
    labels, generator = folder / "pseudo_labels", torch.Generator().manual_seed(0)
    for image in sorted(images.iterdir()):
        probabilities = (3 * torch.rand(8, 12, 12, generator=generator)).softmax(0)
        path = label_path(labels, str(images), str(image))
        write_label(path, SoftLabel(probabilities, (12, 11.5)))
    means = torch.randn(8, 32, generator=generator).numpy()
    np.savez(labels / "prototypes.npz", means=means, images=np.array([1] * 7 + [0]))
    PseudoLabels(str(images), [f"images:{images}"], 8, None, {}, []).write(labels)
    return labels


def adapted_run(folder: Path, kind: str, *, masks: bool = False) -> tuple[str, list[str]]:
    """A config file of a run that adapts to :func:`target_folder`, and what follows --config-file.

    Args:
        folder: to write to; shapes lie below it, see :func:`tests.engine.tiny_runs.shapes_root`.
        kind: of :data:`KINDS`.
        masks: Mask2Former instead of a head that classifies pixels.
    """
    config = shapes_config(folder) if masks else per_pixel_config(folder)
    target = target_folder(folder)
    keys = settings(kind) | {"DATASETS.TARGET": f"('images:{target}',)"}
    if METHODS[keys["MODEL.ADAPTATION.METHOD"]].target_mapper == "target_pseudo_labels":
        keys["MODEL.ADAPTATION.PSEUDO_LABELS"] = write_pseudo_labels(folder, target)
    return config, [str(item) for pair in keys.items() for item in pair]


def adapted_config(folder: Path, kind: str, *, masks: bool = False) -> CfgNode:
    """The config of :func:`adapted_run`, its data sets registered."""
    cfg = load_config(*adapted_run(folder, kind, masks=masks))
    adapt_to_device(cfg)
    register_from_config(cfg)
    return cfg
