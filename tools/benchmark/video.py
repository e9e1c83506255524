"""Measure the memory of clips and of videos, by their number of frames.

    python tools/benchmark/video.py
    python tools/benchmark/video.py --size 1280x720 --clips 1 2 4 TEST.CLIP.FRAMES 4

A clip's frames go through the network together; a video goes through it clip by clip, as TEST.CLIP
says. Weights and frames are random. Prints a table in Markdown.
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
from ddep.endings import errors_as_lines
from ddep.errors import UserError
from training_options import load_benchmark_config
from video_measurement import measure

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
        ("--training", [1, 2, 4], "frames of training clips"),
        ("--clips", [1, 2, 4, 8, 16, 32], "frames of predicted clips"),
        ("--videos", [16, 32, 64, 128], "frames of videos that are predicted clip by clip"),
    ):
        text = f"{what} (default: {' '.join(map(str, default))})"
        add(option, type=int, nargs="*", default=default, metavar="N", help=text)
    add("--output", type=Path, metavar="FILE", help="also write the table into this Markdown file")
    add("opts", nargs="*", metavar="KEY VALUE", help="config keys, after the options")
    args = parser.parse_intermixed_args()
    with errors_as_lines():
        print(_run(args))


def _run(args: argparse.Namespace) -> str:
    if args.output:
        check_output(args.output)
    for option in ("training", "clips", "videos"):
        if any(number < 1 for number in getattr(args, option)):
            raise UserError(f"--{option} has {min(getattr(args, option))}; expected 1 or more")
    width, height = parse_size(args.size, "--size")
    # Prediction clip by clip, as tools/predict.py does it.
    keys = ["TEST.CLIP.FRAMES", "8", *args.opts]
    cfg = load_benchmark_config(args.config_file, keys, args.device)
    if cfg.MODEL.META_ARCHITECTURE != "VideoMaskFormer":
        raise UserError(
            f"{args.config_file}: MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}; "
            "expected VideoMaskFormer"
        )
    whole = cfg.clone()
    whole.defrost()
    whole.TEST.CLIP.FRAMES = 0
    torch.set_num_threads(args.threads)
    lines = [
        f"## Memory of videos, {hardware(args.device)}",
        "",
        f"- date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"- PyTorch {torch.__version__}; frames of {args.size} pixels",
        f"- command: `{shlex.join(['python', *sys.argv])}`",
    ]
    for title, part, lengths, config in (
        ("A training step with one clip", "training clip", args.training, cfg),
        ("Prediction of one clip", "clip", args.clips, whole),
        (f"Prediction in clips of {cfg.TEST.CLIP.FRAMES} frames", "video", args.videos, cfg),
    ):
        if lengths:
            found = [measure(config, part, n, (height, width), args.threads) for n in lengths]
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
