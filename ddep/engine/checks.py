"""What can be found wrong with a run before any work is done."""

from __future__ import annotations

import argparse
import os

import torch
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

from ddep.checkpoint import check_transfer, local_path
from ddep.errors import UserError


def check_gpus(args: argparse.Namespace) -> None:
    """Raise :class:`UserError` if --num-gpus asks for more GPUs than there are.

    One is what detectron2 asks for by default; without any, training runs on the CPU.
    """
    available = torch.cuda.device_count()
    if args.num_gpus > max(available, 1):
        raise UserError(
            f"--num-gpus {args.num_gpus}, but this machine has {available} that torch can use; "
            f"ask for {max(available, 1)} at most"
        )


def check_run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Raise :class:`UserError` if the run that ``args`` asks for cannot start.

    Args:
        cfg: the whole config.
        args: detectron2's arguments; reads ``eval_only`` and ``resume``.
    """
    model = cfg.MODEL
    for key, registry in (
        ("MODEL.META_ARCHITECTURE", META_ARCH_REGISTRY),
        ("MODEL.BACKBONE.NAME", BACKBONE_REGISTRY),
    ):
        name = model.META_ARCHITECTURE if registry is META_ARCH_REGISTRY else model.BACKBONE.NAME
        if name not in registry:
            raise UserError(
                f"{key} is {name!r}; expected one of {', '.join(name for name, _ in registry)}"
            )
    check_transfer(model.DDEP.TRANSFER)
    denoises = model.META_ARCHITECTURE == "DenoisingPretrainer"
    if denoises != (cfg.INPUT.DATASET_MAPPER_NAME == "ddep_denoising"):
        raise UserError(
            f"INPUT.DATASET_MAPPER_NAME is {cfg.INPUT.DATASET_MAPPER_NAME!r} and "
            f"MODEL.META_ARCHITECTURE is {model.META_ARCHITECTURE!r}; the mapper ddep_denoising "
            "goes with DenoisingPretrainer, and only with it"
        )
    if cfg.SOLVER.MAX_ITER < 1:
        raise UserError(f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}; expected at least 1")
    if args.resume and has_checkpoint(cfg):
        return
    if model.WEIGHTS:
        local_path(model.WEIGHTS)
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
