"""Starts the processes of a run, or joins those that torchrun or srun started."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import active_children, parent_process, set_start_method
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ddep.distributed.placement import (
    meeting_point,
    placement_by_agent,
    placement_from_environment,
)
from ddep.distributed.rank import run_rank
from ddep.endings import errors_as_lines
from ddep.parallel import available_cores
from ddep.recorded_signals import recorded_signals

Main = Callable[[argparse.Namespace], Any]


def launch(main: Main, args: argparse.Namespace, device: str | None = None) -> None:
    """Call ``main(args)`` in each process of a run, with detectron2's ``comm`` set up.

    Processes that torchrun or srun started join each other. Otherwise, --num-gpus processes are
    started here, as on each of --num-machines machines; a single one is this process itself.

    If a process fails, the others end too, and so does this program. SIGTERM and SIGINT are
    forwarded to the processes that were started here; a second signal kills them. If this process
    is killed, they get SIGINT.

    Args:
        main: importable by its name; may raise :class:`ddep.errors.Stopped`, in all processes.
        args: detectron2's; reads ``num_gpus``, ``num_machines``, ``machine_rank``, ``dist_url``.
        device: "cuda" (NCCL, a GPU for each process) or "cpu" (gloo); what there is by default.

    Raises:
        UserError: ``args`` that do not fit together, or an address that cannot be used.
        SystemExit: a process failed or was stopped; the status is that of the process, or 128 + the
            number of the signal that ended it.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    placement = placement_from_environment(args)
    if placement is not None and placement.world_size > 1:
        run_rank(main, args, placement, device)
    elif placement is not None or args.num_gpus * args.num_machines <= 1:
        main(args)
    else:
        status = _start_and_watch(main, args, device)
        if status:
            sys.exit(status)


def _start_and_watch(main: Main, args: argparse.Namespace, device: str) -> int:
    """Run this machine's processes under PyTorch's elastic agent, and return the exit status.

    The agent knows this machine alone. Processes of several machines find each other without it,
    because they can be interrupted while they wait, and an agent cannot.
    """
    if args.num_machines > 1:
        meeting_point(args)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=args.num_gpus,
        run_id="ddep",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        rdzv_configs={"is_host": True},
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.2,
        logs_specs=DefaultLogsSpecs(os.devnull),
    )
    # Each process reports its own error; the agent would repeat it as a traceback.
    logging.disable()
    try:
        # In another thread than the main one, the agent leaves the signal handlers alone.
        with recorded_signals(_forward) as signals, ThreadPoolExecutor(1) as pool:
            statuses = pool.submit(elastic_launch(config, _run_process), main, args, device)
            return max(statuses.result().values())
    except ChildFailedError as error:
        local_rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        if signals:
            return 128 + signals[0]
        number = signal.Signals(-failure.exitcode)
        hint = "; is the machine out of memory?" if number == signal.SIGKILL else ""
        rank = f"rank {args.machine_rank * args.num_gpus + local_rank}"
        line = f"error: {rank} (process {failure.pid}) was ended by {number.name}{hint}"
        print(line, file=sys.stderr, flush=True)
        return 128 + number
    finally:
        logging.disable(logging.NOTSET)


def _forward(signals: Sequence[int]) -> None:
    """Forward the first signal to all child processes, and kill them at the second.

    Without child processes, the first signal ends this process.
    """
    processes = active_children()
    if not processes:
        os._exit(128 + signals[-1])
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signals[0] if len(signals) == 1 else signal.SIGKILL)


def _run_process(main: Main, args: argparse.Namespace, device: str) -> int:
    """Join the other processes and call ``main``: what the agent starts.

    Returns:
        The exit status if all processes end together, which may be that of a signal.
    """
    # A spawned process spawns its data loader workers too, which takes seconds each time.
    set_start_method(None, force=True)
    # Ctrl-C reaches all processes of a terminal's group, data loader workers included. In a session
    # of its own, this process gets it from the launcher alone, once, and can save a checkpoint.
    os.setsid()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cores() // args.num_gpus))
    status = 0
    try:
        with errors_as_lines():
            run_rank(main, args, placement_by_agent(args), device)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        status = end.code
    except Exception:
        # The agent would not print it.
        traceback.print_exc()
        sys.exit(1)
    if not parent_process().is_alive():
        # Nobody would receive the status, and returning it would block for ever.
        os._exit(status)
    return status
