"""What ``tools/benchmark-op.py`` does."""

from __future__ import annotations

import argparse

import torch

from ddep.benchmark_page import check_output, write_section
from ddep.errors import UserError, one_line
from ddep.ops.benchmark.cases import STRIDES, Case, dtype_name
from ddep.ops.benchmark.implementations import load_peer
from ddep.ops.benchmark.measure import LARGEST_ERROR, Benchmark
from ddep.ops.benchmark.report import report
from ddep.parallel import available_cores


def run_benchmark(args: argparse.Namespace, command: list[str]) -> None:
    """Print the report line by line, and write it into ``args.output`` if that is given.

    Args:
        args: what the tool parses.
        command: the words of the command line, for the report.

    Raises:
        UserError: an argument cannot be used, the operators cannot run, or a result is wrong.
    """
    device = _device(args.device)
    cases = [
        Case(dtype, size, batch, backward)
        for dtype in map(_dtype, args.dtypes)
        for size in map(_size, args.sizes)
        for batch in args.batches
        for backward in (False, True)
    ]
    numbers = {"--batches": min(args.batches), "--repeats": args.repeats}
    if args.threads is not None:
        numbers["--threads"] = args.threads
    for option, number in numbers.items():
        if number < 1:
            raise UserError(f"{option} is {number}; expected 1 or more")
    if args.threads is not None and args.threads > 2 * available_cores():
        raise UserError(
            f"--threads is {args.threads}; expected {2 * available_cores()} at most, twice the "
            f"{available_cores()} cores"
        )
    if not args.seconds > 0:
        raise UserError(f"--seconds is {args.seconds:g}; expected more than 0")
    if args.output:
        check_output(args.output)
    if args.threads:
        torch.set_num_threads(args.threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    peer = load_peer(args.peer) if args.peer else None
    benchmark = Benchmark(device, args.repeats, args.seconds, peer)
    lines = []
    for line in report(benchmark, cases, command):
        print(line, flush=True)
        lines.append(line)
    if args.output:
        write_section(args.output, "\n".join(lines))


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device is '{name}': {one_line(error)}") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device is '{name}'; expected cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device is '{name}', but {torch.cuda.device_count()} GPUs are visible")
    return device


def _dtype(name: str) -> torch.dtype:
    known = {dtype_name(dtype): dtype for dtype in LARGEST_ERROR}
    if name not in known:
        raise UserError(f"--dtypes has '{name}'; expected {', '.join(known)}")
    return known[name]


def _size(size: int) -> int:
    if size < 1 or size % STRIDES[-1]:
        raise UserError(f"--sizes has {size}; expected multiples of {STRIDES[-1]}")
    return size
