"""Starts the processes of a run and watches over them, or joins those that others have started."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import (
    connection,
    get_context,
    get_start_method,
    parent_process,
    set_start_method,
)
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import torch

from ddep.distributed.placement import Placement, meeting_point, placement_from_environment
from ddep.distributed.process_group import open_store
from ddep.distributed.rank import run_rank
from ddep.endings import errors_as_lines
from ddep.parallel import available_cores

Main = Callable[[argparse.Namespace], Any]

# Seconds that the other processes have to end by themselves when one has failed.
_GRACE = 15.0
# Seconds to save a checkpoint and end in after a signal.
_STOPPING = 600.0
# Seconds between two signals that are more than one.
_ONE_SIGNAL = 1.0
# Seconds in which a signal is noticed.
_INTERVAL = 0.2


def launch(main: Main, args: argparse.Namespace, device: str | None = None) -> None:
    """Call ``main(args)`` in each process of a run, with detectron2's ``comm`` set up.

    Processes that torchrun or srun started join each other; else --num-gpus processes are started
    here, of --num-machines times as many. One alone calls ``main`` in this process.

    If a process fails, the others end too, and so does this program, with status 1. SIGTERM and
    SIGINT are handed on to the processes that were started here, which have ten minutes to end; a
    second signal ends them at once. If this process is killed, they end as by SIGTERM.

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
    """Run this machine's processes; the exit status."""
    host, port = meeting_point(args)
    # In this process, so that it outlives all others and its port can be any that is free.
    store = open_store(host, port, make=True) if args.machine_rank == 0 else None
    if store is not None:
        port = store.port
    first = Placement(
        rank=args.machine_rank * args.num_gpus,
        world_size=args.num_machines * args.num_gpus,
        local_rank=0,
        machine=args.machine_rank,
        host=host,
        port=port,
    )
    context = get_context("spawn")
    processes = [
        context.Process(
            target=_be_rank,
            args=(
                main,
                args,
                replace(first, rank=first.rank + i, local_rank=i),
                device,
                get_start_method(),
            ),
            name=f"rank {first.rank + i}",
        )
        for i in range(args.num_gpus)
    ]
    with _noted_signals() as signals:
        for process in processes:
            process.start()
        return _watch(processes, signals)


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Yields a list that gets the number of each SIGINT and SIGTERM, which do nothing else.

    What comes within a second counts as one: ``timeout`` and others signal a process and its group.
    """
    numbers: list[int] = []
    times = [float("-inf")]

    def note(number: int, _: FrameType | None) -> None:
        if time.monotonic() - times[-1] > _ONE_SIGNAL:
            numbers.append(number)
        times.append(time.monotonic())

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield numbers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(processes: Sequence[BaseProcess], signals: Sequence[int]) -> int:
    """Wait for all processes, and not long for those left when one has failed.

    Args:
        processes: started.
        signals: grows while this waits. The first is handed on, at the second all are killed.

    Returns:
        The status of the first that failed, 0 if none did.
    """
    status, deadline, is_told = 0, float("inf"), False
    running = {process.sentinel: process for process in processes}
    while running:
        if signals and not is_told:
            is_told = True
            deadline = min(deadline, time.monotonic() + _STOPPING)
            for process in running.values():
                os.kill(process.pid, signals[0])
        if len(signals) > 1 or time.monotonic() > deadline:
            for process in running.values():
                process.kill()
                process.join()
            return status or (128 + signals[0] if signals else 1)
        for sentinel in connection.wait(list(running), timeout=_INTERVAL):
            process = running.pop(sentinel)
            process.join()
            code = process.exitcode
            if code < 0 and not signals:
                _say_killed(process)
            if code and not status:
                status = code if code > 0 else 128 - code
                deadline = min(deadline, time.monotonic() + _GRACE)
    return status


def _say_killed(process: BaseProcess) -> None:
    number = signal.Signals(-process.exitcode)
    hint = "; is the machine out of memory?" if number == signal.SIGKILL else ""
    print(
        f"error: {process.name} (process {process.pid}) was ended by {number.name}{hint}",
        file=sys.stderr,
        flush=True,
    )


def _be_rank(
    main: Main, args: argparse.Namespace, placement: Placement, device: str, start_method: str
) -> None:
    """What a started process does."""
    # Spawned itself, it would spawn its data loaders' workers too, which takes seconds each time.
    set_start_method(start_method, force=True)
    # Ctrl-C reaches all processes of a terminal's group, workers that load data too. In a session
    # of their own these hear of it from the launcher alone, once, and can save a checkpoint.
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cores() // args.num_gpus))
    with errors_as_lines():
        run_rank(main, args, placement, device)


def _end_with_parent() -> None:
    connection.wait([parent_process().sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOPPING)
    os.kill(os.getpid(), signal.SIGKILL)
