"""Measure time and memory of a training step with each of the options that affect them.

    python tools/benchmark/training.py --config-file configs/pretrain/NAME.yaml --threads 2
    python tools/benchmark/training.py --config-file configs/pretrain/NAME.yaml --device cuda

The baseline is the config in float32, with a trained backbone and nothing recomputed.
Weights, images and annotations are random. Prints a table in Markdown.

With --peer, instead compare training and inference with other implementations of Mask2Former:

    python tools/benchmark/training.py --config-file configs/finetune/coco/panoptic/NAME.yaml \\
        --peer mask2former=PATH --peer huggingface --image-size 256 --threads 2
"""

from __future__ import annotations

import ddep  # noqa: F401  # isort: skip  # before torch: it sets how OpenMP waits

import argparse
import datetime
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode

from benchmark_page import check_output, hardware, number, table_line, write_section
from ddep.endings import errors_as_lines
from ddep.errors import UserError
from ddep.tasks import task_of
from training_comparison import check_comparable, compare, parse_peers, report
from training_measurement import Result, measure
from training_options import BASELINE, OPTIONS, Option, applies, load_benchmark_config


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="a config for train_net.py")
    add("--device", default="cpu", choices=["cpu", "cuda"], help="default: %(default)s")
    add(
        "--options",
        nargs="+",
        metavar="NAME",
        help="frozen-backbone, checkpoint-swin, checkpoint-pixel-decoder, checkpoint-both, "
        "channels-last, compile, bfloat16, float16 (default: all that change something)",
    )
    add(
        "--image-size",
        type=int,
        default=512,
        metavar="PIXELS",
        help="height and width (default: %(default)s)",
    )
    add("--batch", type=int, default=2, metavar="N", help="images at once (default: %(default)s)")
    add(
        "--rounds",
        type=int,
        default=10,
        metavar="N",
        help="timed steps of each option; they take turns (default: %(default)s)",
    )
    add(
        "--peer",
        action="append",
        metavar="NAME",
        help="compare with mask2former=PATH, a checkout of facebookresearch/Mask2Former, or with "
        "huggingface, which is transformers; give it once or twice",
    )
    add(
        "--precision",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="of autocast, with --peer (default: %(default)s)",
    )
    add(
        "--inference-size",
        type=int,
        default=512,
        metavar="PIXELS",
        help="height and width of the predicted image, with --peer (default: %(default)s)",
    )
    add("--threads", type=int, metavar="N", help="CPU threads (default: PyTorch's)")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="also write the report into this Markdown file, replacing its section on the same "
        "device",
    )
    add(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys on top of the file"
    )
    args = parser.parse_args()
    with errors_as_lines():
        run_benchmark(args, ["python", *sys.argv])


def run_benchmark(args: argparse.Namespace, command: list[str]) -> None:
    """Print the report, and write it into ``args.output`` if that is given.

    Args:
        args: what the tool parses.
        command: the words of the command line, for the report.

    Raises:
        UserError: an argument or the config cannot be used.
    """
    for option in ("image_size", "batch", "rounds", "threads", "inference_size"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')} is {value}; expected 1 or more")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is 'cuda', but PyTorch sees no GPU; use cpu")
    if args.output:
        check_output(args.output)
    if args.threads:
        torch.set_num_threads(args.threads)
    peers = parse_peers(args.peer or [])
    if peers and args.options:
        raise UserError("--options and --peer exclude each other; give one of them")
    if not peers and args.precision != "float32":
        raise UserError(f"--precision needs --peer; without it give --options {args.precision}")
    cfg = load_benchmark_config(args.config_file, args.opts, args.device)
    title, *tables = _comparison(cfg, args, peers) if peers else _options(cfg, args)
    text = "\n".join([title, "", *_conditions(args, command), "", *tables])
    print(text)
    if args.output:
        write_section(args.output, text)


def _chosen(names: Sequence[str] | None, cfg: CfgNode) -> list[Option]:
    """The options with these names; None takes all that change something."""
    if names is None:
        return [option for option in OPTIONS if applies(option, cfg)]
    known = {option.name: option for option in OPTIONS if applies(option, cfg)}
    for name in names:
        if name not in known:
            raise UserError(
                f"--options has '{name}'; with this config and device expected some of "
                f"{', '.join(known)}"
            )
    return [known[name] for name in names]


def _options(cfg: CfgNode, args: argparse.Namespace) -> list[str]:
    """Title and table of the options."""
    options = [BASELINE, *_chosen(args.options, cfg)]
    results = measure(cfg, options, args.image_size, args.batch, args.rounds)
    kind = "Pretraining" if task_of(cfg).num_classes(cfg) is None else "Fine-tuning"
    return [f"## {kind} step, {hardware(args.device)}", *_table(results)]


def _comparison(cfg: CfgNode, args: argparse.Namespace, peers: Mapping[str, str]) -> list[str]:
    """Title and tables of the comparison with ``peers``."""
    check_comparable(cfg)
    comparisons = compare(
        cfg,
        peers,
        image_size=args.image_size,
        batch_size=args.batch,
        inference_size=args.inference_size,
        rounds=args.rounds,
        precision=args.precision,
    )
    sizes = {
        "training": f"{args.batch} images of {args.image_size}x{args.image_size} pixels",
        "inference": f"1 image of {args.inference_size}x{args.inference_size} pixels",
    }
    title = f"## Beside other implementations, {args.precision}, {hardware(args.device)}"
    return [title, *report(comparisons, sizes)]


def _conditions(args: argparse.Namespace, command: list[str]) -> Iterator[str]:
    yield f"- date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
    yield f"- PyTorch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"
    yield (
        f"- {args.config_file}, {args.batch} images of {args.image_size}x{args.image_size} pixels, "
        f"median of {args.rounds} steps"
    )
    yield f"- command: `{shlex.join(command)}`"


def _table(results: Mapping[Option, Result]) -> Iterator[str]:
    columns = ["option", "images/s", "of baseline", "memory, MiB", "of baseline"]
    yield table_line(columns)
    yield table_line("---" for _ in columns)
    baseline = results[BASELINE]
    for option, result in results.items():
        yield table_line(
            [
                option.name,
                number(result.images_per_second),
                f"{number(result.images_per_second / baseline.images_per_second)}×",
                number(result.memory_bytes / 2**20),
                f"{number(result.memory_bytes / baseline.memory_bytes)}×",
            ]
        )


if __name__ == "__main__":
    main()
