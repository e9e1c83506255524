"""Measure the memory and time that tools/predict.py takes to follow objects through videos.

    python tools/benchmark/tracking.py
    python tools/benchmark/tracking.py --frames 100 1000 --size 256

The model has random weights, and all of its queries count as instances. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import shlex
import sys

from ddep.endings import errors_as_lines
from tracking_measurement import run_benchmark


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--config-file",
        default="configs/demo/moving_shapes.yaml",
        metavar="CONFIG",
        help="of a model of videos (default: %(default)s)",
    )
    add(
        "--frames",
        type=int,
        nargs="+",
        default=[50, 500],
        metavar="N",
        help="lengths of videos, a line of the table for each (default: 50 500)",
    )
    add(
        "--size",
        type=int,
        default=96,
        metavar="N",
        help="height and width of the videos in pixels (default: %(default)s)",
    )
    args = parser.parse_args()
    with errors_as_lines():
        command = shlex.join(["python", *sys.argv])
        print(run_benchmark(args.config_file, args.frames, args.size, command))


if __name__ == "__main__":
    main()
