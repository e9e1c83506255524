"""The process group that a process joins, and detectron2's group of those on one machine."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm

from ddep.distributed.placement import Placement
from ddep.errors import UserError

# How long machines wait for each other at the start.
_JOIN_TIMEOUT = timedelta(minutes=30)
# For a process that hangs; one that dies is noticed at once (see failures.py). Must be longer than
# anything that rank 0 does while others wait, such as listing millions of files.
_TIMEOUT = timedelta(hours=2)


def join_group(placement: Placement, device: str) -> None:
    """Join the other processes: NCCL for GPUs, gloo for CPUs.

    Args:
        placement: of this process.
        device: "cuda" or "cpu". This process's GPU becomes torch's current one.

    Raises:
        UserError: there is no GPU for this process, or the port is taken.
    """
    if device == "cuda":
        torch.cuda.set_device(_gpu(placement.local_rank))
    where: dict[str, Any] = {"init_method": "env://"}
    if not placement.by_agent:
        where = {"store": open_store(placement.host, placement.port, placement.makes_store)}
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        rank=placement.rank,
        world_size=placement.world_size,
        timeout=_TIMEOUT,
        **where,
    )
    machines = _all_gather(placement.machine)
    for machine in sorted(set(machines)):
        group = dist.new_group([rank for rank, of in enumerate(machines) if of == machine])
        if machine == placement.machine:
            comm._LOCAL_PROCESS_GROUP = group


def _all_gather(value: Any) -> list[Any]:
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def leave_group() -> None:
    """Wait for the other processes, then leave the group."""
    comm.synchronize()
    dist.destroy_process_group()
    comm._LOCAL_PROCESS_GROUP = None


def open_store(host: str, port: int, make: bool) -> dist.TCPStore:
    """Connect to the TCPStore at an address, or make it.

    Raises:
        UserError: the port is taken, or nobody is there.
    """
    try:
        return dist.TCPStore(
            host, port, is_master=make, timeout=_JOIN_TIMEOUT, wait_for_workers=False
        )
    except RuntimeError as error:
        problem = "cannot be opened" if make else "does not answer"
        raise UserError(
            f"port {port} of {host} {problem} ({str(error).splitlines()[0]}); --dist-url, or "
            "MASTER_ADDR and MASTER_PORT, must name rank 0's machine and a free port there"
        ) from error


def _gpu(local_rank: int) -> int:
    available = torch.cuda.device_count()
    # Slurm may show each process its own GPU alone.
    if available == 1:
        return 0
    if local_rank >= available:
        raise UserError(
            f"process {local_rank} of this machine has no GPU: torch finds {available} on "
            f"{os.uname().nodename}; start one process for each GPU"
        )
    return local_rank
