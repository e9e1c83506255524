"""The config and the weights of a trained model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from ddep.checkpoint import Checkpointer
from ddep.checkpoint.run_folder import run_config, run_weights
from ddep.config_files import override
from ddep.errors import UserError
from ddep.tasks import Task, load_config


def read_model_config(
    model: str | Path | CfgNode, weights: str | Path | None, overrides: Sequence[str]
) -> CfgNode:
    """The config of a run or file, with MODEL.WEIGHTS; see :class:`ddep.inference.Predictor`."""
    if isinstance(model, CfgNode):
        cfg = model.clone()
        cfg.defrost()
        override(cfg, overrides)
    elif Path(model).is_dir():
        chosen = weights or dict(zip(overrides[::2], overrides[1::2], strict=False)).get(
            "MODEL.WEIGHTS"
        )
        cfg = load_config(run_config(model), overrides)
        # What the config itself has in MODEL.WEIGHTS is what training started from.
        cfg.MODEL.WEIGHTS = str(chosen or run_weights(model))
    else:
        if not Path(model).exists():
            raise UserError(
                f"{model} does not exist; expected the folder of a run or a YAML config"
            )
        if Path(model).suffix in (".pth", ".pkl"):
            raise UserError(
                f"{model} is a checkpoint; expected the folder of a run or a YAML config: give its "
                f"folder, or a config with MODEL.WEIGHTS {model}"
            )
        cfg = load_config(str(model), overrides)
    if weights is not None:
        cfg.MODEL.WEIGHTS = str(weights)
    return cfg


def load_weights(model: nn.Module, cfg: CfgNode, task: Task) -> None:
    """Load MODEL.WEIGHTS; UserError unless it has all parameters of the model."""
    checkpointer = Checkpointer(model, encoder=cfg.MODEL.BACKBONE.FROZEN_WEIGHTS)
    checkpointer.load(cfg.MODEL.WEIGHTS)
    absent = checkpointer.absent_parameters()
    if not absent:
        return
    message = f"{cfg.MODEL.WEIGHTS} lacks {len(absent)} weights of the model, such as {absent[0]}"
    shapes = checkpointer.report.mismatched
    other = next((name for name in absent if name in shapes), None)
    if other is not None:
        found, expected = shapes[other]
        message += f"; it has {other} of shape {found} instead of {expected}"
        if task.num_classes_key:
            message += f" ({task.num_classes_key} is {task.num_classes(cfg)})"
    raise UserError(f"{message}; give the checkpoint that training with this config wrote")
