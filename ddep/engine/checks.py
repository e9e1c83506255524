"""What can be found wrong with a run before any work is done."""

from __future__ import annotations

import argparse
import os
import re
from functools import reduce
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY, SEM_SEG_HEADS_REGISTRY

from ddep.checkpoint import check_transfer, local_path
from ddep.checkpoint.listing import list_checkpoints
from ddep.config import load_config
from ddep.data.augmentation import build_augmentations
from ddep.distributed.placement import placement_from_environment
from ddep.engine.train_step import PRECISIONS
from ddep.errors import UserError
from ddep.modeling.build_criterion import mask_loss_name
from ddep.noise import check_formulation, draw_sigma


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and value >= 1


# What the values of keys must be: key, test, expected.
_VALUES = (
    (
        "MODEL.DEVICE",
        lambda device: re.fullmatch(r"cpu|cuda(:\d+)?", str(device)),
        "cpu, cuda or cuda:N",
    ),
    ("MODEL.MASK_FORMER.TRAIN_NUM_POINTS", _is_positive, "at least 1"),
    ("SOLVER.MAX_ITER", _is_positive, "at least 1"),
    ("SOLVER.IMS_PER_BATCH", _is_positive, "at least 1"),
    ("SOLVER.ACCUMULATION_STEPS", _is_positive, "at least 1"),
    ("SOLVER.MAX_SKIPPED_STEPS", _is_positive, "at least 1"),
    (
        "SOLVER.AMP.PRECISION",
        lambda name: name in PRECISIONS,
        " or ".join(PRECISIONS),
    ),
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


def check_values(cfg: CfgNode) -> None:
    """Raise :class:`UserError` if a key has a value that nothing can be done with."""
    for key, is_valid, expected in _VALUES:
        value = _get(cfg, key)
        if not is_valid(value):
            raise UserError(f"{key} is {value!r}; expected {expected}")
    _check_batch(cfg, 1)


def _get(cfg: CfgNode, key: str) -> Any:
    return reduce(CfgNode.__getitem__, key.split("."), cfg)


def check_processes(args: argparse.Namespace) -> str:
    """Check that the processes that ``args`` or torchrun or srun ask for can run here.

    Args:
        args: detectron2's arguments.

    Returns:
        What they run on: "cuda" (one GPU each) or "cpu".

    Raises:
        UserError: GPUs that are not there, or a batch that cannot be shared out.
    """
    placement = placement_from_environment(args)
    number = placement.world_size if placement else args.num_gpus * args.num_machines
    available = torch.cuda.device_count()
    if number <= 1 or not args.config_file:
        return "cuda" if available else "cpu"
    cfg = load_config(args.config_file, args.opts or ())
    check_values(cfg)
    if cfg.MODEL.DEVICE == "cpu":
        device = "cpu"
    else:
        device = "cuda"
        if cfg.MODEL.DEVICE != "cuda":
            raise UserError(
                f"MODEL.DEVICE is {cfg.MODEL.DEVICE}, one GPU, but {number} processes are asked "
                "for; expected cuda (a GPU for each) or cpu"
            )
        if placement is None and args.num_gpus > max(available, 1):
            raise UserError(
                f"--num-gpus {args.num_gpus}, but this machine has {available} that torch can use; "
                f"ask for {max(available, 1)} at most, or for as many processes on the CPU with "
                "MODEL.DEVICE cpu"
            )
        if not available:
            raise UserError(
                f"{number} processes are asked for, but torch can use no GPU on this machine; "
                "each needs one, or MODEL.DEVICE cpu"
            )
    if not args.eval_only:
        _check_batch(cfg, number)
    return device


def _check_batch(cfg: CfgNode, processes: int) -> None:
    images, steps = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATION_STEPS
    if images % (processes * steps):
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {images}; expected a multiple of {processes * steps}, for "
            f"{processes} process{'es' if processes > 1 else ''} and "
            f"SOLVER.ACCUMULATION_STEPS {steps}"
        )


def check_run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Raise :class:`UserError` if the run that ``args`` asks for cannot start.

    Args:
        cfg: the whole config.
        args: detectron2's arguments; reads ``eval_only`` and ``resume``.
    """
    model = cfg.MODEL
    denoises = model.META_ARCHITECTURE == "DenoisingPretrainer"
    registries = {
        "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
        "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    }
    if not denoises:
        registries["MODEL.SEM_SEG_HEAD.NAME"] = SEM_SEG_HEADS_REGISTRY
    for key, registry in registries.items():
        name = _get(cfg, key)
        if name not in registry:
            raise UserError(
                f"{key} is {name!r}; expected one of {', '.join(name for name, _ in registry)}"
            )
    check_transfer(model.DDEP.TRANSFER)
    if denoises != (cfg.INPUT.DATASET_MAPPER_NAME == "ddep_denoising"):
        raise UserError(
            f"INPUT.DATASET_MAPPER_NAME is {cfg.INPUT.DATASET_MAPPER_NAME!r} and "
            f"MODEL.META_ARCHITECTURE is {model.META_ARCHITECTURE!r}; the mapper ddep_denoising "
            "goes with DenoisingPretrainer, and only with it"
        )
    if not denoises:
        mask_loss_name(cfg)
    else:
        check_formulation(model.DDEP.NOISE)
        draw_sigma(model.DDEP.SIGMA, torch.Generator())
    if not args.eval_only:
        build_augmentations(cfg, is_train=True)
    if args.resume and has_checkpoint(cfg):
        return
    if model.WEIGHTS:
        for path in list_checkpoints(model.WEIGHTS) if args.eval_only else [model.WEIGHTS]:
            local_path(path)
    elif args.eval_only:
        raise UserError(
            "--eval-only needs weights, but MODEL.WEIGHTS is empty; add MODEL.WEIGHTS and the path "
            "of a checkpoint, or --resume to evaluate the last one in OUTPUT_DIR"
        )
    elif is_frozen(cfg):
        raise frozen_backbone_error("MODEL.WEIGHTS is empty")


def has_checkpoint(cfg: CfgNode) -> bool:
    """Whether a run in OUTPUT_DIR can be resumed."""
    return os.path.exists(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint"))


def is_frozen(cfg: CfgNode) -> bool:
    """Whether the backbone stays as it is in training: pretraining that is DDeP, not DeP."""
    return cfg.MODEL.META_ARCHITECTURE == "DenoisingPretrainer" and cfg.MODEL.DDEP.FREEZE_BACKBONE


def frozen_backbone_error(found: str) -> UserError:
    """The error for a frozen backbone that would stay random; ``found`` says why it would."""
    return UserError(
        f"the backbone is frozen but has no pretrained weights ({found}); either set MODEL.WEIGHTS "
        "to a checkpoint of a pretrained backbone, or train it too with MODEL.DDEP.FREEZE_BACKBONE "
        "False"
    )
