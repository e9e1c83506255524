"""Time the mappers: images per second and worker, next to torchvision's transforms.

    python tools/benchmark-data.py
    python tools/benchmark-data.py --mappers ddep_denoising --images imagenet/train/n01440764

Both sides do the same job with one thread: read, resize, crop, recolour and flip, and make the
tensors that a model is trained with. They take turns on the same files, which the program generates
or finds in a folder of one's own. Prints a table in Markdown: the median rates, and the quartiles
of the ratios of all rounds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ddep.data.benchmark.program import run_benchmark
from ddep.engine import errors_as_lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--mappers",
        nargs="+",
        metavar="NAME",
        help="INPUT.DATASET_MAPPER_NAME (default: all; ddep_denoising with --images)",
    )
    add(
        "--sizes",
        nargs="+",
        default=["500x375", "2000x1500"],
        metavar="WxH",
        help="of the generated photographs (default: 500x375 2000x1500)",
    )
    add("--images", type=Path, metavar="DIR", help="read the images in this folder instead")
    add("--count", type=int, default=8, metavar="N", help="photographs (default: %(default)s)")
    add(
        "--workers",
        nargs="*",
        type=int,
        default=[1, 2],
        metavar="N",
        help="also measure ddep_denoising in a DataLoader with so many workers (default: 1 2)",
    )
    add(
        "--seconds",
        type=float,
        default=5,
        metavar="S",
        help="time for a line of the table, of five rounds at the least (default: %(default)s)",
    )
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="also write the report into this Markdown file, in place of its section on the same "
        "processor",
    )
    args = parser.parse_args()
    with errors_as_lines():
        run_benchmark(args, ["python", *sys.argv])


if __name__ == "__main__":
    main()
