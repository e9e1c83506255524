"""Which processes a command asks for, and whether they can run here."""

from __future__ import annotations

import argparse

import torch

from ddep.distributed.placement import placement_from_environment
from ddep.engine.checks import check_batch, check_values
from ddep.errors import UserError
from ddep.tasks import load_config


def check_processes(args: argparse.Namespace) -> str:
    """Check that the processes that ``args`` or torchrun or srun ask for can run here.

    Args:
        args: detectron2's arguments.

    Returns:
        What they run on: "cuda" (one GPU each) or "cpu".

    Raises:
        UserError: too few GPUs, or a batch that the processes cannot share.
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
        check_batch(cfg, number)
    return device
