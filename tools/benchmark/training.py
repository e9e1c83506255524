"""Measure time and memory of a training step with each of the options that affect them.

    python tools/benchmark/training.py --config-file configs/pretrain/NAME.yaml --threads 2
    python tools/benchmark/training.py --config-file configs/pretrain/NAME.yaml --device cuda

The baseline is the config in float32, with a trained backbone and nothing recomputed.
Weights, images and annotations are random. Prints a table in Markdown.
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

from benchmark_page import check_output, cpu_name, number, table_line, write_section
from ddep.endings import errors_as_lines
from ddep.errors import UserError
from ddep.tasks import load_config, task_of
from training_measurement import Result, measure
from training_options import BASELINE, OPTIONS, Option, applies


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
    for option in ("image_size", "batch", "rounds", "threads"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise UserError(f"--{option.replace('_', '-')} is {value}; expected 1 or more")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is 'cuda', but PyTorch sees no GPU; use cpu")
    if args.output:
        check_output(args.output)
    if args.threads:
        torch.set_num_threads(args.threads)
    # Annotations are random: no data set has to fit the model.
    overrides = [*args.opts, "MODEL.DEVICE", args.device, "DATASETS.TRAIN", "()"]
    cfg = load_config(args.config_file, [*overrides, "DATASETS.TEST", "()"])
    cfg.MODEL.WEIGHTS = ""
    cfg.freeze()
    options = [BASELINE, *_chosen(args.options, cfg)]
    results = measure(cfg, options, args.image_size, args.batch, args.rounds)
    text = "\n".join(_report(cfg, args, results, command))
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


def _report(
    cfg: CfgNode, args: argparse.Namespace, results: Mapping[Option, Result], command: list[str]
) -> Iterator[str]:
    count = torch.get_num_threads()
    where = f"{cpu_name()}, {count} thread{'s' * (count > 1)}"
    if args.device == "cuda":
        where = torch.cuda.get_device_name()
    kind = "Pretraining" if task_of(cfg).num_classes(cfg) is None else "Fine-tuning"
    yield f"## {kind} step, {where}"
    yield ""
    yield f"- date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
    yield f"- PyTorch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"
    yield (
        f"- {args.config_file}, {args.batch} images of {args.image_size}x{args.image_size} pixels, "
        f"median of {args.rounds} steps"
    )
    yield f"- command: `{shlex.join(command)}`"
    yield ""
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
