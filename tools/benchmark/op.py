"""Time deformable attention: reference, unfused and fused, and another library's kernels.

    python tools/benchmark/op.py --threads 2
    python tools/benchmark/op.py --device cuda --peer MultiScaleDeformableAttention

Every result is compared with the reference before it is timed. Prints tables in Markdown: median
times, the speed relative to the reference, the memory that tensors take beyond the inputs, and on a
GPU the bandwidth that a perfect implementation would need for this time.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Silences the profiler, which records memory on the CPU. Must be set before torch is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import ddep  # noqa: F401  # isort: skip  # before torch: it sets how OpenMP waits

import torch

from benchmark_page import check_output, write_section
from ddep.endings import errors_as_lines
from ddep.errors import UserError, one_line
from ddep.parallel import available_cores
from op_cases import STRIDES, Case, dtype_name
from op_implementations import load_peer
from op_measurement import LARGEST_ERROR, Benchmark
from op_report import report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    add(
        "--dtypes",
        nargs="+",
        default=["float32", "bfloat16", "float16"],
        metavar="DTYPE",
        help="float64, float32, bfloat16, float16 (default: the last three)",
    )
    add(
        "--sizes",
        nargs="+",
        type=int,
        default=[256, 512, 1024],
        metavar="PIXELS",
        help="height and width of the input, multiples of 32 (default: 256 512 1024)",
    )
    add(
        "--batches",
        nargs="+",
        type=int,
        default=[1, 8],
        metavar="N",
        help="images at once (default: 1 8)",
    )
    add("--threads", type=int, metavar="N", help="CPU threads (default: PyTorch's)")
    add(
        "--repeats",
        type=int,
        default=50,
        metavar="N",
        help="maximum of timed runs of each implementation; they take turns (default: %(default)s)",
    )
    add(
        "--seconds",
        type=float,
        default=5,
        metavar="S",
        help="time for a line of the table, at least three runs each (default: %(default)s)",
    )
    add(
        "--peer",
        metavar="MODULE",
        help="also time this module, which has Deformable DETR's ms_deform_attn_forward and "
        "ms_deform_attn_backward, as 'original' in the dtypes that it supports",
    )
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="also write the report into this Markdown file, replacing its section on the same "
        "device",
    )
    args = parser.parse_args()
    with errors_as_lines():
        run_benchmark(args, ["python", *sys.argv])


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
    # PyTorch selects and asks GPUs by their number only.
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def _dtype(name: str) -> torch.dtype:
    known = {dtype_name(dtype): dtype for dtype in LARGEST_ERROR}
    if name not in known:
        raise UserError(f"--dtypes has '{name}'; expected {', '.join(known)}")
    return known[name]


def _size(size: int) -> int:
    if size < 1 or size % STRIDES[-1]:
        raise UserError(f"--sizes has {size}; expected multiples of {STRIDES[-1]}")
    return size


if __name__ == "__main__":
    main()
