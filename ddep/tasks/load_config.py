"""Reads a config, with the modules that it imports and the defaults of its task."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.config import CfgNode

from ddep.config_files import read_config
from ddep.tasks.registry import find_task, registered_tasks


def load_config(config_file: str, overrides: Sequence[str] = ()) -> CfgNode:
    """Read a config, import what IMPORTS names, and fill in the defaults of its task.

    Args:
        config_file: path of the YAML file.
        overrides: KEY, VALUE, KEY, VALUE, ...

    Returns:
        The config, not frozen. An empty INPUT.DATASET_MAPPER_NAME is the task's default.

    Raises:
        UserError: see :func:`ddep.config_files.read_config`.
    """
    cfg = read_config(config_file, overrides, add_keys=_add_keys_of_tasks)
    task = find_task(cfg)
    if task is not None and not cfg.INPUT.DATASET_MAPPER_NAME:
        cfg.INPUT.DATASET_MAPPER_NAME = task.mappers[0]
    return cfg


def _add_keys_of_tasks(cfg: CfgNode) -> None:
    for task in registered_tasks():
        task.add_config(cfg)
