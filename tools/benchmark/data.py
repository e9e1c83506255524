"""Time the mappers: images per second and worker, next to torchvision's transforms.

    python tools/benchmark/data.py
    python tools/benchmark/data.py --mappers ddep_denoising --images imagenet/train/n01440764

Both sides do the same job with one thread: read, resize, crop, recolour and flip, and make the
tensors that a model is trained with. They take turns on the same files, which are generated or come
from a folder of yours. Prints a table in Markdown: the median rates, and the quartiles of the
ratios over all rounds.
"""

from __future__ import annotations

import ddep  # noqa: F401  # isort: skip  # before torch: it sets how OpenMP waits

import argparse
import datetime
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch
import torchvision
from PIL import features

from benchmark_page import check_output, cpu_name, number, parse_size, table_line, write_section
from data_jobs import MEASURED
from data_measurement import OURS, THEIRS, Case, Result, measure
from ddep.data.record import Record
from ddep.endings import errors_as_lines
from ddep.errors import UserError
from ddep.parallel import available_cores
from photographs import find_photographs, make_photographs

DENOISING = "ddep_denoising"


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
        help="also measure ddep_denoising in DataLoaders with N workers (default: 1 2)",
    )
    add(
        "--seconds",
        type=float,
        default=5,
        metavar="S",
        help="time for a line of the table, at least five rounds (default: %(default)s)",
    )
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="also write the report into this Markdown file, replacing its section on the same "
        "processor",
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
        UserError: an argument cannot be used.
    """
    sizes = [parse_size(words) for words in args.sizes]
    mappers = _mappers(args)
    if args.count < 1:
        raise UserError(f"--count is {args.count}; expected 1 or more")
    if not args.seconds >= 0:
        raise UserError(f"--seconds is {args.seconds:g}; expected 0 or more")
    for workers in args.workers:
        if not 1 <= workers <= available_cores():
            raise UserError(
                f"--workers has {workers}; expected 1 to {available_cores()}, the number of cores"
            )
    if args.output:
        check_output(args.output)
    with tempfile.TemporaryDirectory() as folder:
        if args.images:
            images = {"own": find_photographs(args.images, args.count)}
        else:
            images = {
                f"{width}x{height}": make_photographs(Path(folder), width, height, args.count)
                for width, height in sizes
            }
        cases = [
            Case(mapper, name, records, workers)
            for mapper in mappers
            for name, records in images.items()
            for workers in (0, *(args.workers if mapper == DENOISING else ()))
        ]
        lines = []
        for line in _report(images, cases, args.seconds, command):
            print(line, flush=True)
            lines.append(line)
    if args.output:
        write_section(args.output, "\n".join(lines))


def _mappers(args: argparse.Namespace) -> list[str]:
    known = [DENOISING] if args.images else MEASURED
    for name in args.mappers or ():
        if name not in known:
            why = ": a folder of images has no labels" if args.images else ""
            raise UserError(f"--mappers has '{name}'; expected {', '.join(known)}{why}")
    return args.mappers or known


def _report(
    images: dict[str, list[Record]], cases: list[Case], seconds: float, command: list[str]
) -> Iterator[str]:
    yield f"## Data, {cpu_name()}"
    yield ""
    yield f"- date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
    yield f"- CPU: {cpu_name()}, {available_cores()} cores; one thread for each worker"
    yield (
        f"- PyTorch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"Pillow {PIL.__version__} with libjpeg-turbo {features.version('libjpeg_turbo')}, "
        f"OpenCV {cv2.__version__}, NumPy {np.__version__}"
    )
    for name, records in images.items():
        kilobytes = sum(Path(r["file_name"]).stat().st_size for r in records) / len(records) / 1e3
        yield f"- images of {name}: {len(records)}, {number(kilobytes)} kB each on average"
    yield f"- command: `{shlex.join(command)}`"
    yield ""
    columns = ["mapper", "images", "workers", OURS, *THEIRS, "ratio to the faster"]
    yield table_line(columns)
    yield table_line("---" for _ in columns)
    for case in cases:
        yield _row(measure(case, seconds))


def _row(result: Result) -> str:
    case = result.case
    low, median, high = result.ratios()
    cells = [
        case.mapper.ljust(20),
        case.images.ljust(9),
        str(case.workers) if case.workers else "—",
    ]
    cells += [number(result.rate(name)) for name in (OURS, *THEIRS)]
    return table_line([*cells, f"{median:.2f}× ({low:.2f}–{high:.2f})"])


if __name__ == "__main__":
    main()
