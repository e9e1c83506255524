"""Refuses experiments that train on their test images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ddep.data.datasets import class_folders, image_folder, register_from_config
from ddep.data.datasets.catalog import possible_paths
from ddep.data.file_paths import path_of
from ddep.errors import UserError, one_line
from ddep.experiments.experiment import Experiment
from ddep.experiments.plan import Run, words_of
from ddep.tasks import load_config

_FOLDERS = (image_folder.PREFIX, class_folders.PREFIX)


def check_test_images(experiment: Experiment, runs: Mapping[str, Run]) -> None:
    """Check that no run trains on images that fine-tuning is tested on.

    Folders of images are compared by their paths alone, because they may hold millions.

    Raises:
        UserError: a run does, or a data set is unknown or has no files.
    """
    configs: dict[tuple[str, ...], tuple[Run, CfgNode]] = {}
    for run in runs.values():
        sets = {key: run.options[key] for key in run.options if key.startswith("DATASETS.T")}
        key = (run.config, *words_of(sets))
        if key not in configs:
            configs[key] = run, load_config(run.config, words_of(run.options))
    tested: set[str] = set()
    for run, cfg in configs.values():
        try:
            register_from_config(cfg)
        except UserError as error:
            raise UserError(f"{experiment.file}: {run.name}: {one_line(error)}") from error
        if run.cell:
            for name in cfg.DATASETS.TEST:
                tested |= _paths(DatasetCatalog.get(name))
    for run, cfg in configs.values():
        for name in dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TARGET)):
            if shared := _shared(name, tested):
                raise UserError(
                    f"{experiment.file}: {run.name} trains on {name}, which has {len(shared)} of "
                    f"the {len(tested)} test images of fine-tuning, such as {min(shared)}; "
                    f"expected others (DATASETS.{_key(cfg, name)})"
                )


def _key(cfg: CfgNode, name: str) -> str:
    return "TRAIN" if name in cfg.DATASETS.TRAIN else "TARGET"


def _shared(train_set: str, tested: set[str]) -> set[str]:
    prefix = next((prefix for prefix in _FOLDERS if train_set.startswith(prefix)), None)
    if prefix is None:
        return tested & _paths(DatasetCatalog.get(train_set))
    folder = next(filter(Path.exists, possible_paths(train_set.removeprefix(prefix))))
    below = os.path.join(os.path.realpath(folder), "")
    return {path for path in tested if path.startswith(below)}


def _paths(records: Iterable[Mapping[str, str]]) -> set[str]:
    return {os.path.realpath(path_of(record["file_name"])) for record in records}
