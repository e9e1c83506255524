"""Write Cityscapes' labels as detectron2 reads them: semantic, panoptic and instance labels."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.cityscapes import prepare_cityscapes
from ddep.data.datasets.preparation import print_counts
from ddep.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        type=Path,
        default=dataset_root() / "cityscapes",
        help="with gtFine/, into which the labels are written (default: %(default)s)",
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="default: %(default)s"
    )
    args = parser.parse_args()
    print_counts(args.folder, prepare_cityscapes(args.folder, args.processes))


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
