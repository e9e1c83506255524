"""Write ADE20K's semantic labels as detectron2 reads them: classes 0..149, 255 for unlabelled."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ddep.data.datasets.ade20k import prepare_ade20k
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
        help="with images/ and annotations/; annotations_detectron2/ is written into it "
        "(default: %(default)s)",
    )
    args = parser.parse_args()
    print_counts(args.folder, prepare_ade20k(args.folder))


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
