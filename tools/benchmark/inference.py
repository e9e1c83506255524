"""Measure time and memory of predictions, from 8-bit pixels to all results.

    python tools/benchmark/inference.py --threads 2 --config-file \\
        configs/finetune/coco/panoptic/mask2former_swin_tiny.yaml \\
        configs/finetune/coco/panoptic/mask2former_R50.yaml
    python tools/benchmark/inference.py --threads 2 --config-file FILE --sizes 512x384 \\
        --batches 1 --variants --peer mask2former=PATH --peer huggingface

The baseline is the config in float32. Weights and images are random. Prints a table in Markdown.
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

from benchmark_page import (
    check_output,
    hardware,
    number,
    parse_size,
    table_line,
    write_section,
)
from ddep.endings import errors_as_lines
from ddep.errors import UserError
from inference_measurement import BASELINE, VARIANTS, Prediction, measure
from training_comparison import check_comparable, parse_peers
from training_options import load_benchmark_config

_COLUMNS = [
    "model",
    "pixels",
    "batch",
    "implementation",
    "images/s",
    "network, ms an image",
    "post-processing, ms an image",
    f"of {BASELINE.name}'s time",
    "peak memory, MiB",
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, nargs="+", metavar="FILE", help="configs of Mask2Formers")
    add("--device", default="cpu", choices=["cpu", "cuda"], help="default: %(default)s")
    add(
        "--sizes",
        nargs="+",
        default=["512x512", "1024x1024"],
        metavar="WIDTHxHEIGHT",
        help="of the images, in pixels (default: 512x512 1024x1024)",
    )
    add(
        "--batches",
        nargs="+",
        type=int,
        default=[1, 8],
        metavar="N",
        help="images at once (default: 1 8)",
    )
    names = [variant.name for variant in VARIANTS]
    add(
        "--variants",
        nargs="*",
        default=names,
        metavar="NAME",
        help=f"beside {BASELINE.name}: {', '.join(names)} (default: all)",
    )
    add(
        "--peer",
        action="append",
        metavar="NAME",
        help="also mask2former=PATH, a checkout of facebookresearch/Mask2Former, or huggingface, "
        "which is transformers; give it once or twice",
    )
    add(
        "--rounds",
        type=int,
        default=5,
        metavar="N",
        help="timed predictions, in turns with the baseline (default: %(default)s)",
    )
    add("--threads", type=int, metavar="N", help="CPU threads (default: PyTorch's)")
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="also write the report into this Markdown file, replacing its section on the same "
        "device",
    )
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config keys on top of the file")
    args = parser.parse_args()
    with errors_as_lines():
        run_benchmark(args, ["python", *sys.argv])


def run_benchmark(args: argparse.Namespace, command: list[str]) -> None:
    """Print the report line by line, and write it into ``args.output`` if that is given.

    Args:
        args: what the tool parses.
        command: the words of the command line, for the report.

    Raises:
        UserError: an argument or a config cannot be used, or the baseline fails.
    """
    for option, values in (
        ("batches", args.batches),
        ("rounds", [args.rounds]),
        ("threads", [1 if args.threads is None else args.threads]),
    ):
        for value in values:
            if value < 1:
                raise UserError(f"--{option} has {value}; expected 1 or more")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device is 'cuda', but PyTorch sees no GPU; use cpu")
    if args.output:
        check_output(args.output)
    if args.threads:
        torch.set_num_threads(args.threads)
    lines = []
    for line in _report(args, command):
        print(line, flush=True)
        lines.append(line)
    if args.output:
        write_section(args.output, "\n".join(lines))


def _report(args: argparse.Namespace, command: list[str]) -> Iterator[str]:
    known = {variant.name: variant for variant in VARIANTS}
    for name in args.variants:
        if name not in known:
            raise UserError(f"--variants has '{name}'; expected some of {', '.join(known)}")
    variants = [known[name] for name in args.variants]
    peers = parse_peers(args.peer or [])
    sizes = [parse_size(words) for words in args.sizes]
    configs = {}
    for path in args.config_file:
        configs[path] = load_benchmark_config(path, args.opts, args.device)
        check_comparable(configs[path])
    yield f"## Inference, {hardware(args.device)}"
    yield ""
    yield f"- date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
    yield f"- PyTorch {torch.__version__}, CUDA {torch.version.cuda or 'none'}"
    yield f"- medians of {args.rounds} predictions"
    yield f"- command: `{shlex.join(command)}`"
    yield ""
    yield table_line(_COLUMNS)
    yield table_line("---" for _ in _COLUMNS)
    failures = []
    for path, cfg in configs.items():
        for width, height in sizes:
            for batch in args.batches:
                case = [Path(path).stem, f"{width}x{height}", str(batch)]
                for name, found in measure(
                    cfg, variants, peers, size=(width, height), batch_size=batch, rounds=args.rounds
                ):
                    if isinstance(found, UserError):
                        failures.append(f"- {', '.join([*case, name])}: {found}")
                        found = None
                    yield table_line([*case, name, *_cells(found, batch)])
    if failures:
        yield ""
        yield from failures


def _cells(found: Prediction | None, batch: int) -> list[str]:
    """What the table says about one implementation; nothing if it failed."""
    if found is None:
        return ["—"] * 5
    return [
        number(batch / found.seconds),
        number(1000 * found.network_seconds / batch),
        number(1000 * (found.seconds - found.network_seconds) / batch),
        f"{number(found.of_baseline)}×",
        number(found.memory_bytes / 2**20),
    ]


if __name__ == "__main__":
    main()
