"""Prepare CamVid: semantic labels, and panoptic ones made of connected components."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ddep.data.datasets.camvid import prepare_camvid
from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.preparation import print_counts
from ddep.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "source",
        metavar="SRC",
        type=Path,
        help="CamVid in SegNet's split: {train,val,test}/ and {train,val,test}annot/",
    )
    parser.add_argument(
        "target",
        metavar="DST",
        nargs="?",
        type=Path,
        default=dataset_root() / "camvid",
        help="folder to write to, images included (default: %(default)s)",
    )
    args = parser.parse_args()
    print_counts(args.target, prepare_camvid(args.source, args.target))
    print("instances are connected components: touching objects of a class count as one")


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
