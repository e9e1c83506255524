"""Experiments of tiny models, done by train_net.py or by a stand-in for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ddep.experiments.experiment import Experiment
from ddep.experiments.experiment_file import read_experiment
from tests.engine.tiny_runs import per_pixel_config, write_config


def write_experiment(folder: Path, **changes: Any) -> str:
    """Write an experiment file and its configs; a change to None removes a key."""
    config = write_config(
        folder,
        "denoising",
        MODEL__META_ARCHITECTURE="DenoisingPretrainer",
        DATASETS__TRAIN=["images:nowhere"],
        DATASETS__TEST=["shapes_panoptic_val"],
        INPUT__DATASET_MAPPER_NAME="ddep_denoising",
        INPUT__CROP={"ENABLED": True, "TYPE": "absolute", "SIZE": [40, 40]},
    )
    content: dict[str, Any] = {
        "title": "Small",
        "output": str(folder / "out"),
        "data": {"shapes": {"train": 7, "val": 2, "unlabelled": 3, "size": 48}},
        "metric": "sem_seg/mIoU",
        "pretraining": {"denoising": {"config": config, "images": "shapes/unlabelled"}},
        "fine_tuning": {"config": per_pixel_config(folder)},
        "starts": {"random": {}, "denoised decoder": {"weights": "denoising"}},
        "baseline": "random",
        "labels": [3, "all"],
        "seeds": [0, 1],
    }
    content |= changes
    path = folder / "small.yaml"
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(yaml.safe_dump(kept, sort_keys=False))
    return str(path)


def small_experiment(folder: Path, **changes: Any) -> Experiment:
    """Write an experiment and read it."""
    return read_experiment(write_experiment(folder, **changes))
