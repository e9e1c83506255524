"""The programs that tests run in several processes: ``python programs.py FUNCTION [OPTIONS]``."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import types
from pathlib import Path

# Importing the whole package takes seconds, in each process of each test.
_package = types.ModuleType("ddep")
_package.__path__ = [str(Path(__file__).parents[2] / "ddep")]
sys.modules["ddep"] = _package

import torch  # noqa: E402
import torch.distributed as dist  # noqa: E402
from detectron2.utils import comm  # noqa: E402

from ddep.distributed import launch  # noqa: E402
from ddep.endings import errors_as_lines  # noqa: E402
from ddep.errors import Stopped, UserError  # noqa: E402


def introduce(_: argparse.Namespace) -> None:
    """Print who this process is, in one write, and a sum that it computed with the others."""
    total = torch.tensor([comm.get_rank() + 1.0])
    dist.all_reduce(total)
    words = [
        f"rank {comm.get_rank()} of {comm.get_world_size()}",
        f"local {comm.get_local_rank()} of {comm.get_local_size()}",
        f"sum {total.item():g}",
        f"threads {torch.get_num_threads()}",
        f"pid {os.getpid()}",
    ]
    sys.stdout.write(", ".join(words) + "\n")
    sys.stdout.flush()
    dist.barrier()


def until_stopped(args: argparse.Namespace) -> None:
    """Work until any process has received a signal, then take a while to save."""
    signals = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    introduce(args)
    while True:
        stop = torch.tensor([len(signals)])
        dist.all_reduce(stop)
        if stop.item():
            break
        time.sleep(0.05)
    if comm.get_rank() == 0:
        time.sleep(1)
        print("saved", flush=True)
    raise Stopped("stopped by SIGTERM in iteration 3", signal.SIGTERM)


def mistake(args: argparse.Namespace) -> None:
    """All processes find the same mistake."""
    raise UserError("mend\nthis")


def fail(args: argparse.Namespace) -> None:
    """The last process fails while the others wait for it, and rank 0 does not even listen."""
    introduce(args)
    if comm.get_rank() == comm.get_world_size() - 1:
        raise KeyError("the cause")
    if comm.get_rank() == 0:
        time.sleep(1000)
    dist.barrier()


def be_killed(args: argparse.Namespace) -> None:
    """The last process is killed while the others wait for it."""
    introduce(args)
    if comm.get_rank() == comm.get_world_size() - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def wait_for_ever(args: argparse.Namespace) -> None:
    introduce(args)
    time.sleep(1000)


def ignore_signals(args: argparse.Namespace) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_for_ever(args)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("function")
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0)
    parser.add_argument("--dist-url", default="auto")
    args = parser.parse_args()
    with errors_as_lines():
        launch(globals()[args.function], args, "cpu")


if __name__ == "__main__":
    main()
