"""What ``tools/benchmark-training.py`` does."""

from __future__ import annotations

import argparse
import datetime
import shlex
from collections.abc import Iterator, Mapping, Sequence

import torch
from detectron2.config import CfgNode

from ddep.benchmark_page import check_output, cpu_name, number, table_line, write_section
from ddep.config import load_config
from ddep.engine.benchmark.measure import Result, measure
from ddep.engine.benchmark.options import BASELINE, OPTIONS, Option, applies
from ddep.errors import UserError


def run_benchmark(args: argparse.Namespace, command: list[str]) -> None:
    """Print the report, and write it into ``args.output`` if that is given.

    Args:
        args: what the tool parses.
        command: the words of the command line, for the report.

    Raises:
        UserError: an argument cannot be used, or the config cannot.
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
    """The options of these names; None are all that change something."""
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
    kind = "Pretraining" if cfg.MODEL.META_ARCHITECTURE == "DenoisingPretrainer" else "Fine-tuning"
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
