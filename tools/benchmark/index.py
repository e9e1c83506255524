"""Measure the index of a folder of millions of images: time, size and memory.

    python tools/benchmark/index.py
    python tools/benchmark/index.py --images 100000 --workers 8

The images are only names. Their folders are created among the temporary files ($TMPDIR), where the
index needs about 30 bytes per image. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from ddep.endings import errors_as_lines
from index_measurement import run_benchmark


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--images",
        type=int,
        nargs="+",
        default=[1_300_000, 14_000_000],
        metavar="N",
        help="numbers of images, a line of the table for each (default: 1300000 14000000)",
    )
    add(
        "--per-folder",
        type=int,
        default=650,
        metavar="N",
        help="images in each folder (default: %(default)s, as in ImageNet-21k)",
    )
    add(
        "--workers",
        type=int,
        default=4,
        metavar="N",
        help="processes that read at once (default: %(default)s)",
    )
    args = parser.parse_args()
    with errors_as_lines():
        command = shlex.join(["python", *sys.argv])
        print(run_benchmark(args.images, args.per_folder, args.workers, command))


if __name__ == "__main__":
    main()
