"""Time a training step and find its memory, with each option of speed and memory beside the others.

    python tools/benchmark-training.py --config-file configs/pretrain/NAME.yaml --threads 2
    python tools/benchmark-training.py --config-file configs/pretrain/NAME.yaml --device cuda

The baseline is the config in float32, with a backbone that is trained and nothing recomputed.
Weights, images and annotations are random. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ddep.engine import errors_as_lines
from ddep.engine.benchmark.program import run_benchmark


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="of a training, as for train_net.py")
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
        help="also write the report into this Markdown file, in place of its section on the same "
        "device",
    )
    add(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config keys on top of the file"
    )
    args = parser.parse_args()
    with errors_as_lines():
        run_benchmark(args, ["python", *sys.argv])


if __name__ == "__main__":
    main()
