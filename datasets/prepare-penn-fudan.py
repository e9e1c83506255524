"""Prepare Penn-Fudan: instance, panoptic and semantic labels, split 4 to 1 into train and val."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.penn_fudan import prepare_penn_fudan
from ddep.data.datasets.preparation import print_counts
from ddep.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "source",
        metavar="SRC",
        type=Path,
        help="folder with PNGImages/ and PedMasks/",
    )
    parser.add_argument(
        "target",
        metavar="DST",
        nargs="?",
        type=Path,
        default=dataset_root() / "penn_fudan",
        help="folder to write to, images included (default: %(default)s)",
    )
    args = parser.parse_args()
    print_counts(args.target, prepare_penn_fudan(args.source, args.target))


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
