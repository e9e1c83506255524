"""Find what is wrong with a data set before days of training.

    python tools/check-dataset.py camvid_panoptic_train
    python tools/check-dataset.py images:/data/photographs --output output/photographs

NAME is any data set that DATASETS.TRAIN may name. Every image and label is read. Finds files that
are missing, damaged or of different sizes, classes out of range, empty masks, ids that occur twice,
segments that the PNG and JSON files do not share, and boxes without area. Prints these, how often
each class occurs, and PIXEL_MEAN and PIXEL_STD; writes all of it to report.json, and a picture of
some labelled images to contact_sheet.png. The exit status is 0 if all is fine and 1 if not.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from ddep.engine import errors_as_lines
from ddep.engine.dataset_check import check_dataset
from ddep.parallel import available_cores, check_workers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="of a data set, or images:<folder>")
    parser.add_argument("--output", metavar="FOLDER", help="default: output/check/NAME")
    parser.add_argument(
        "--workers", type=int, default=available_cores(), help="processes (default: %(default)s)"
    )
    args = parser.parse_args()
    output = args.output or Path("output", "check", re.sub(r"[^\w.-]+", "_", args.name))
    with errors_as_lines():
        check_workers(args.workers)
        report = check_dataset(args.name, str(output), args.workers)
        print(report)
        print(f"report and contact sheet: {output}")
    sys.exit(0 if report.fine else 1)


if __name__ == "__main__":
    main()
