"""Generate the demo's data set of textured shapes: train, val and unlabelled images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.preparation import print_counts
from ddep.data.datasets.shapes import generate_shapes
from ddep.errors import UserError

HELP = {
    "seed": "the same seed gives the same files",
    "train": "number of labelled training images",
    "val": "number of labelled validation images",
    "unlabelled": "number of images without labels, to pretrain on",
    "size": "height and width of the images in pixels",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "target",
        metavar="DST",
        nargs="?",
        type=Path,
        default=dataset_root() / "shapes",
        help="folder to write to (default: %(default)s)",
    )
    for name, default in generate_shapes.__kwdefaults__.items():
        text = f"{HELP[name]} (default: %(default)s)"
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    arguments = vars(parser.parse_args())
    target = arguments.pop("target")
    print_counts(target, generate_shapes(target, **arguments))


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
