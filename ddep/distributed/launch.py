"""Starts the processes of a run, or joins those that others have started."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import active_children, parent_process, set_start_method
from types import FrameType
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

Main = Callable[[argparse.Namespace], Any]

# Seconds between two signals that are more than one.
_ONE_SIGNAL = 1.0


def launch(main: Main, args: argparse.Namespace, device: str | None = None) -> None:
    """Call ``main(args)`` in each process of a run, with detectron2's ``comm`` set up.

    Processes that torchrun or srun started join each other; else --num-gpus processes are started
    here, of --num-machines times as many. One alone calls ``main`` in this process.

    If a process fails, the others end too, and so does this program. SIGTERM and SIGINT are handed
    on to the processes that were started here; a second signal ends them at once. If this process
    is killed, they get SIGINT.

    Args:
        main: importable by its name; may raise :class:`ddep.errors.Stopped`, in all processes.
        args: detectron2's; reads ``num_gpus``, ``num_machines``, ``machine_rank``, ``dist_url``.
        device: "cuda" (NCCL, a GPU for each process) or "cpu" (gloo); what there is by default.

    Raises:
        UserError: ``args`` that do not fit together, or an address that cannot be used.
        SystemExit: a process has failed or was stopped; the status is what it ended with, or 128
            and the number of the signal that ended it.
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
    """Run this machine's processes under an elastic agent of PyTorch's; the exit status.

    The agent is that of one machine: processes of several machines meet without it, because only
    they can be interrupted while they wait for the others.
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
    # Each process says what is wrong with it; the agent would repeat it as tracebacks of its own.
    logging.disable()
    try:
        # The agent takes signals away from the thread it runs in only if that is the main one.
        with _signals_handed_on() as signals, ThreadPoolExecutor(1) as pool:
            statuses = pool.submit(elastic_launch(config, _be_rank), main, args, device)
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


@contextlib.contextmanager
def _signals_handed_on() -> Iterator[list[int]]:
    """Hand the first SIGINT or SIGTERM on to all child processes, and kill them at the second.

    What comes within a second counts as one: ``timeout`` and others signal a process and its group.
    Without child processes the first ends this one.

    Yields:
        A list that gets the number of each.
    """
    numbers: list[int] = []
    times = [float("-inf")]

    def hand_on(number: int, _: FrameType | None) -> None:
        if time.monotonic() - times[-1] > _ONE_SIGNAL:
            numbers.append(number)
            processes = active_children()
            if not processes:
                os._exit(128 + number)
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number if len(numbers) == 1 else signal.SIGKILL)
        times.append(time.monotonic())

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield numbers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _be_rank(main: Main, args: argparse.Namespace, device: str) -> int:
    """What a started process does.

    Returns:
        The exit status if all processes end together, which may be that of a signal.
    """
    # Spawned itself, it would spawn its data loaders' workers too, which takes seconds each time.
    set_start_method(None, force=True)
    # Ctrl-C reaches all processes of a terminal's group, workers that load data too. In a session
    # of their own these hear of it from the launcher alone, once, and can save a checkpoint.
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
        # The agent would keep it to itself.
        traceback.print_exc()
        sys.exit(1)
    if not parent_process().is_alive():
        # Nobody takes the status; this process would wait for that for ever.
        os._exit(status)
    return status
