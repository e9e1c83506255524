"""Everything that is checked before a run starts, as one list of checks."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from detectron2.config import CfgNode

from ddep.adaptation import adapts, check_adaptation, method_of
from ddep.checkpoint import check_transfer, local_path
from ddep.checkpoint.listing import list_checkpoints
from ddep.config import get_key
from ddep.data import (
    check_target_sets,
    check_training_sets,
    register_from_config,
    target_batch_size,
)
from ddep.data.mappers import build_mapper, build_target_mapper
from ddep.engine.checkpoint_hooks import check_checkpoints
from ddep.engine.frozen_backbone import frozen_backbone_error
from ddep.engine.train_step import PRECISIONS
from ddep.engine.wandb_writer import check_wandb
from ddep.engine.whitening import check_whitening
from ddep.errors import UserError
from ddep.evaluation.semantic import compare_classes
from ddep.tasks import task_of


@dataclass(frozen=True)
class Run:
    """What a command asks for.

    Attributes:
        cfg: the whole config, adapted to the device.
        eval_only: whether to evaluate instead of training.
        resume: whether to continue an earlier run.
    """

    cfg: CfgNode
    eval_only: bool
    resume: bool


def check_run(run: Run) -> list[str]:
    """Run all checks, and register the data sets that the config names.

    Returns:
        A line for everything that may not be what the user meant.

    Raises:
        UserError: the run cannot start, or would end in an error.
    """
    return [note for check in _CHECKS for note in check(run)]


def check_values(cfg: CfgNode) -> None:
    """Raise :class:`UserError` if the value of a key is out of its range."""
    for key, is_valid, expected in _VALUES:
        value = get_key(cfg, key)
        if not is_valid(value):
            raise UserError(f"{key} is {value!r}; expected {expected}")
    check_batch(cfg, 1)


def check_batch(cfg: CfgNode, processes: int) -> None:
    """Raise :class:`UserError` unless each process and each part gets the same number of images."""
    steps = cfg.SOLVER.ACCUMULATION_STEPS
    parts = {"IMS_PER_BATCH": (cfg.SOLVER.IMS_PER_BATCH, processes * steps)}
    if adapts(cfg):
        in_one = 2 if method_of(cfg).in_pairs else 1
        parts["TARGET_IMS_PER_BATCH"] = (target_batch_size(cfg), in_one * processes * steps)
    for key, (images, divisor) in parts.items():
        if images % divisor:
            raise UserError(
                f"SOLVER.{key} is {images}; expected a multiple of {divisor}, for "
                f"{processes} process{'es' if processes > 1 else ''} and "
                f"SOLVER.ACCUMULATION_STEPS {steps}"
            )


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and value >= 1


# Keys with a test of their values, and what the error message says is expected.
_VALUES = (
    (
        "MODEL.DEVICE",
        lambda device: re.fullmatch(r"cpu|cuda(:\d+)?", str(device)),
        "cpu, cuda or cuda:N",
    ),
    ("MODEL.MASK_FORMER.TRAIN_NUM_POINTS", _is_positive, "at least 1"),
    ("SOLVER.MAX_ITER", _is_positive, "at least 1"),
    ("SOLVER.IMS_PER_BATCH", _is_positive, "at least 1"),
    ("SOLVER.TARGET_IMS_PER_BATCH", lambda number: number >= 0, "at least 0"),
    ("SOLVER.ACCUMULATION_STEPS", _is_positive, "at least 1"),
    ("SOLVER.MAX_SKIPPED_STEPS", _is_positive, "at least 1"),
    (
        "SOLVER.AMP.PRECISION",
        lambda name: name in PRECISIONS,
        " or ".join(PRECISIONS),
    ),
    ("SOLVER.TRANSFERRED_MULTIPLIER", lambda factor: factor >= 0, "at least 0"),
    ("SOLVER.NEW_ONLY_ITERS", lambda number: number >= 0, "at least 0"),
    ("SOLVER.LAYER_DECAY", lambda decay: 0 < decay <= 1, "a number above 0, at most 1"),
    ("SOLVER.EMA.DECAY", lambda decay: 0 <= decay < 1, "a number from 0 to below 1"),
    ("SOLVER.CHECKPOINT_PERIOD", _is_positive, "at least 1"),
    ("TEST.EVAL_PERIOD", lambda period: period >= 0, "at least 0"),
    ("DATALOADER.NUM_WORKERS", lambda number: number is not None and number >= 0, "at least 0"),
    (
        "INPUT.MIN_SIZE_TRAIN",
        lambda sizes: sizes and all(map(_is_positive, sizes)),
        "a list of numbers of at least 1",
    ),
)


def _check_model(run: Run) -> list[str]:
    notes = task_of(run.cfg).check(run.cfg)
    check_transfer(run.cfg.MODEL.DDEP.TRANSFER)
    if not run.eval_only:
        check_whitening(run.cfg)
    return notes


def _check_adaptation(run: Run) -> list[str]:
    if run.eval_only:
        return []
    check_adaptation(run.cfg)
    if adapts(run.cfg):
        task_of(run.cfg).check_adaptation(run.cfg)
        check_target_sets(run.cfg)
    return []


def _check_weights(run: Run) -> list[str]:
    cfg = run.cfg
    if run.resume and has_checkpoint(cfg):
        return []
    if run.eval_only:
        paths = list_checkpoints(cfg.MODEL.WEIGHTS) if cfg.MODEL.WEIGHTS else []
    else:
        paths = task_of(cfg).initial_weights(cfg)
    if paths:
        for path in paths:
            local_path(path)
    elif run.eval_only:
        raise UserError(
            "--eval-only needs weights, but MODEL.WEIGHTS is empty; add MODEL.WEIGHTS and the path "
            "of a checkpoint, or --resume to evaluate the last one in OUTPUT_DIR"
        )
    elif cfg.MODEL.BACKBONE.FROZEN_WEIGHTS:
        raise UserError(
            "MODEL.BACKBONE.FROZEN_WEIGHTS is for a checkpoint that lacks its encoder, but "
            "MODEL.WEIGHTS is empty; name a pretrained encoder to start from in MODEL.WEIGHTS"
        )
    elif task_of(cfg).freezes_encoder(cfg):
        raise frozen_backbone_error("MODEL.WEIGHTS is empty", task_of(cfg).freeze_key)
    if run.resume:
        start = " and ".join(paths) or "random numbers"
        return [f"--resume, but {cfg.OUTPUT_DIR} has no checkpoint: starting from {start}"]
    return []


def _check_data(run: Run) -> list[str]:
    cfg = run.cfg
    register_from_config(
        cfg,
        ("TEST",) if run.eval_only else ("TRAIN", "TARGET", "TEST"),
        instances=not {"bbox", "segm"}.isdisjoint(task_of(cfg).measured(cfg)),
    )
    if run.eval_only and not cfg.DATASETS.TEST:
        raise UserError("--eval-only, but DATASETS.TEST is empty; name at least one data set")
    if not run.eval_only:
        check_training_sets(cfg)
        build_mapper(cfg, is_train=True)  # checks its keys
        if adapts(cfg):
            build_target_mapper(cfg, method_of(cfg).target_mapper)
    if cfg.DATASETS.TEST:
        build_mapper(cfg, is_train=False)
    return []


def _check_evaluation(run: Run) -> list[str]:
    cfg, task = run.cfg, task_of(run.cfg)
    notes = []
    measures = {name: task.measures_on(cfg, name) for name in cfg.DATASETS.TEST}
    for name in measures:
        for measure in measures[name]:
            measure.check(name)
        if any(measure.name == "sem_seg" for measure in measures[name]):
            trained_on = next(iter(cfg.DATASETS.TRAIN), None)
            notes += compare_classes(name, task.num_classes(cfg), task.num_classes_key, trained_on)
    if not run.eval_only:
        check_checkpoints(cfg, measures)
    return notes


def _check_output(run: Run) -> list[str]:
    cfg = run.cfg
    if not run.eval_only:
        check_wandb(cfg)
    if has_checkpoint(cfg) and not run.resume and not run.eval_only:
        return [
            f"{cfg.OUTPUT_DIR} holds an earlier run, whose checkpoints will be replaced; "
            "--resume would continue it"
        ]
    return []


_CHECKS: tuple[Callable[[Run], list[str]], ...] = (
    _check_model,
    _check_adaptation,
    _check_weights,
    _check_data,
    _check_evaluation,
    _check_output,
)


def has_checkpoint(cfg: CfgNode) -> bool:
    """Whether a run in OUTPUT_DIR can be resumed."""
    return os.path.exists(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint"))
