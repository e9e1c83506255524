"""The place of a process in a run: its rank, its machine, and where all processes meet."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ddep.errors import UserError

_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Placement:
    """A process among those of a run.

    Attributes:
        rank: its number, from 0.
        world_size: how many there are.
        local_rank: its number among those of its machine.
        machine: the machine's number.
        host: name or address of rank 0's machine.
        port: of the TCPStore on ``host``.
        by_agent: whether an elastic agent, such as torchrun's, has created the store.
        makes_store: whether this process creates the store.
    """

    rank: int
    world_size: int
    local_rank: int
    machine: int
    host: str
    port: int
    by_agent: bool = False
    makes_store: bool = False


def placement_from_environment(
    args: argparse.Namespace, environment: Mapping[str, str] | None = None
) -> Placement | None:
    """The place that torchrun or Slurm's srun gave to this process; None if neither started it.

    Args:
        args: detectron2's arguments; with --num-machines they describe the processes themselves.
        environment: ``os.environ`` by default.

    Raises:
        UserError: ``args`` also ask for several processes.
    """
    environment = os.environ if environment is None else environment
    if all(name in environment for name in _TORCHRUN):
        if args.num_gpus * args.num_machines > 1:
            raise UserError(_asked_twice(args, "torchrun"))
        return placement_by_agent(args, environment)
    # Of srun's tasks; a batch script without srun has SLURM_NTASKS too, but is one process.
    world_size = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if world_size == 1 or args.num_machines > 1:
        return None
    if args.num_gpus > 1:
        raise UserError(_asked_twice(args, "srun"))
    rank = int(environment["SLURM_PROCID"])
    return Placement(
        rank,
        world_size,
        local_rank=int(environment["SLURM_LOCALID"]),
        machine=int(environment["SLURM_NODEID"]),
        host=environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"]),
        # Below the ports that the system assigns.
        port=int(
            environment.get("MASTER_PORT") or 20000 + int(environment["SLURM_JOB_ID"]) % 12000
        ),
        makes_store=rank == 0,
    )


def placement_by_agent(
    args: argparse.Namespace, environment: Mapping[str, str] | None = None
) -> Placement:
    """The place of a process that PyTorch's elastic agent, such as torchrun's, has started.

    Args:
        args: detectron2's. With --num-machines, the agent knows its own machine alone, and its
            processes meet those of other machines at --dist-url.
        environment: ``os.environ`` by default.
    """
    environment = os.environ if environment is None else environment
    rank, local_rank, world_size = (int(environment[name]) for name in _TORCHRUN[:3])
    if args.num_machines > 1:
        host, port = meeting_point(args)
        rank += args.machine_rank * args.num_gpus
        world_size *= args.num_machines
        return Placement(
            rank, world_size, local_rank, args.machine_rank, host, port, makes_store=rank == 0
        )
    return Placement(
        rank,
        world_size,
        local_rank,
        machine=int(environment.get("GROUP_RANK", 0)),
        host=environment["MASTER_ADDR"],
        port=int(environment["MASTER_PORT"]),
        by_agent=True,
    )


def _asked_twice(args: argparse.Namespace, by: str) -> str:
    option = "--num-gpus" if args.num_gpus > 1 else "--num-machines"
    return f"{option} asks for several processes, but {by} has started them; leave {option} out"


def first_host(nodes: str) -> str:
    """The first host of Slurm's list: ``gpu07`` of ``gpu[07-09,12],big1``."""
    first = re.match(r"(\[[^\]]*\]|[^,\[])*", nodes)[0]
    return re.sub(r"\[(\d+)[^\]]*\]", r"\1", first)


def meeting_point(args: argparse.Namespace) -> tuple[str, int]:
    """Host and port of --dist-url, where several machines meet.

    Raises:
        UserError: a URL that they cannot meet at, or a wrong --machine-rank.
    """
    if not 0 <= args.machine_rank < args.num_machines:
        raise UserError(
            f"--machine-rank is {args.machine_rank}; expected 0 to {args.num_machines - 1}, "
            "a different one on each machine"
        )
    found = re.fullmatch(r"tcp://([^:/]+):(\d+)", args.dist_url)
    if not found:
        raise UserError(
            f"--dist-url is {args.dist_url}; expected tcp://HOST:PORT with the host of "
            "--machine-rank 0 and a free port there"
        )
    return found[1], int(found[2])
