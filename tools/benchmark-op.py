"""Time deformable attention: reference, unfused and fused, and another library's kernels.

    python tools/benchmark-op.py --threads 2
    python tools/benchmark-op.py --device cuda --peer MultiScaleDeformableAttention

Every result is compared with the reference before it is timed. Prints tables in Markdown: median
times, how many times as fast as the reference, the memory that tensors take beyond the inputs, and
on a GPU the bandwidth that a perfect implementation would need for this time.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# The profiler, which records memory on the CPU, writes its stages to the terminal. Before torch.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

from ddep.engine import errors_as_lines
from ddep.ops.benchmark.program import run_benchmark


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
        help="timed runs of each implementation at most; they take turns (default: %(default)s)",
    )
    add(
        "--seconds",
        type=float,
        default=5,
        metavar="S",
        help="time for a line of the table, of three runs each at the least (default: %(default)s)",
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
        help="also write the report into this Markdown file, in place of its section on the same "
        "device",
    )
    args = parser.parse_args()
    with errors_as_lines():
        run_benchmark(args, ["python", *sys.argv])


if __name__ == "__main__":
    main()
