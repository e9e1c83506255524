"""Write ADE20K's labels as detectron2 reads them: semantic, and panoptic and instance labels."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ddep.data.datasets.ade20k_preparation import prepare_ade20k
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
        default=dataset_root() / "ADEChallengeData2016",
        help="with images/, annotations/ and, for panoptic and instance labels, "
        "annotations_instance/; all labels are written into it (default: %(default)s)",
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="default: %(default)s"
    )
    args = parser.parse_args()
    print_counts(args.folder, prepare_ade20k(args.folder, args.processes))
    if not (args.folder / "annotations_instance").exists():
        print("no panoptic and instance labels, because there is no annotations_instance/")


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
