"""Write the full ADE20K of 2021 as MaskFormer reads it: 847 classes, shorter side 512 at most."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ddep.data.datasets.ade20k_full import prepare_ade20k_full
from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.preparation import print_counts
from ddep.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        type=Path,
        default=dataset_root() / "ADE20K_2021_17_01",
        help="with images/; images_detectron2/ and annotations_detectron2/ are written into it "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="default: %(default)s"
    )
    args = parser.parse_args()
    print_counts(args.folder, prepare_ade20k_full(args.folder, args.processes))


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
