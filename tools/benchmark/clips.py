"""Measure the memory of clips, whose frames go through the network together, by their length.

    python tools/benchmark/clips.py
    python tools/benchmark/clips.py --size 1280x720 --training 1 2 --prediction 1 2 4 8

Weights and frames are random. Prints a table in Markdown. tools/benchmark/tracking.py measures long
videos, which are predicted clip by clip.
"""

from __future__ import annotations

import ddep  # noqa: F401  # isort: skip  # before torch: it sets how OpenMP waits

import argparse
import datetime
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmark_page import check_output, hardware, parse_size, table_line, write_section
from clips_measurement import measure
from ddep.endings import errors_as_lines
from ddep.errors import UserError
from training_options import load_benchmark_config

_COLUMNS = ["frames", "peak memory, MiB", "each frame beyond the line before, MiB"]
_MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--config-file",
        default="configs/finetune/youtubevis_2019/instance/mask2former_R50.yaml",
        metavar="FILE",
        help="of a VideoMaskFormer (default: %(default)s)",
    )
    add("--device", default="cpu", choices=["cpu", "cuda"], help="default: %(default)s")
    add("--threads", type=int, default=2, metavar="N", help="default: %(default)s")
    add(
        "--size",
        default="640x360",
        metavar="WIDTHxHEIGHT",
        help="of the frames, in pixels (default: %(default)s)",
    )
    for option, default, what in (
        ("--training", [1, 2, 4], "trained on"),
        ("--prediction", [1, 2, 4, 8, 16], "predicted"),
    ):
        text = f"frames of clips that are {what} (default: {' '.join(map(str, default))})"
        add(option, type=int, nargs="*", default=default, metavar="N", help=text)
    add("--output", type=Path, metavar="FILE", help="also write the table into this Markdown file")
    add("opts", nargs="*", metavar="KEY VALUE", help="config keys, after the options")
    args = parser.parse_intermixed_args()
    with errors_as_lines():
        print(_run(args))


def _run(args: argparse.Namespace) -> str:
    if args.output:
        check_output(args.output)
    for option in ("training", "prediction"):
        if any(number < 1 for number in getattr(args, option)):
            raise UserError(f"--{option} has {min(getattr(args, option))}; expected 1 or more")
    width, height = parse_size(args.size, "--size")
    cfg = load_benchmark_config(args.config_file, args.opts, args.device)
    if cfg.MODEL.META_ARCHITECTURE != "VideoMaskFormer":
        raise UserError(
            f"{args.config_file}: MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}; "
            "expected VideoMaskFormer"
        )
    torch.set_num_threads(args.threads)
    lines = [
        f"## Memory of clips, {hardware(args.device)}",
        "",
        f"- date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"- PyTorch {torch.__version__}; frames of {args.size} pixels",
        f"- command: `{shlex.join(['python', *sys.argv])}`",
    ]
    for title, training, lengths in (
        ("A training step with one clip", True, args.training),
        ("Prediction of one clip", False, args.prediction),
    ):
        if lengths:
            found = [measure(cfg, training, n, (height, width), args.threads) for n in lengths]
            lines += ["", f"{title}:", "", *_table(lengths, found)]
    section = "\n".join(lines)
    if args.output:
        write_section(args.output, section)
    return section


def _table(lengths: list[int], found: list[int]) -> Iterator[str]:
    yield table_line(_COLUMNS)
    yield table_line(["---"] * len(_COLUMNS))
    for index, (frames, memory) in enumerate(zip(lengths, found, strict=True)):
        more = ""
        if index:
            added = frames - lengths[index - 1]
            more = f"{(memory - found[index - 1]) / added / _MIB:.1f}"
        yield table_line([str(frames), f"{memory / _MIB:.0f}", more])


if __name__ == "__main__":
    main()
