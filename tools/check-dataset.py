"""Find errors in a data set before days of training.

    python tools/check-dataset.py camvid_panoptic_train
    python tools/check-dataset.py images:/data/photographs --output output/photographs
    python tools/check-dataset.py classes:imagenet/train
    python tools/check-dataset.py --config-file my-config.yaml

NAME is any data set that DATASETS.TRAIN may name; with --config-file, also one of its
DATASETS.CUSTOM. Without NAME, all data sets in the config's DATASETS.TRAIN and TEST are checked.

Every image and label is read. Finds missing and damaged files, images and labels of different
sizes, classes out of range, empty masks, repeated ids, segments that only the PNG or only the JSON
file has, and boxes without area. Prints these, the frequency of each class, and PIXEL_MEAN and
PIXEL_STD; writes all of it to report.json, and a picture of some labelled images to
contact_sheet.png. The exit status is 0 if there are no errors and 1 otherwise.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from detectron2.config import CfgNode

from ddep.endings import errors_as_lines
from ddep.errors import UserError
from ddep.inference.dataset_check import check_dataset
from ddep.parallel import available_cores, check_workers
from ddep.tasks import load_config


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "name", metavar="NAME", nargs="?", help="a data set, or images:<folder> or classes:<folder>"
    )
    parser.add_argument("--config-file", metavar="FILE", help="names or describes data sets")
    parser.add_argument(
        "--output",
        metavar="FOLDER",
        type=Path,
        help="default: output/check/NAME; with several data sets, each gets a subfolder",
    )
    parser.add_argument(
        "--workers", type=int, default=available_cores(), help="processes (default: %(default)s)"
    )
    args = parser.parse_args()
    fine = True
    with errors_as_lines():
        check_workers(args.workers)
        cfg = load_config(args.config_file) if args.config_file else None
        names = [args.name] if args.name else _data_sets_of(cfg)
        for name in names:
            output = args.output or Path("output", "check")
            if not args.output or len(names) > 1:
                output /= re.sub(r"[^\w.-]+", "_", name)
            report = check_dataset(name, str(output), args.workers, cfg)
            print(report)
            print(f"report and contact sheet: {output}")
            fine = fine and report.fine
    sys.exit(0 if fine else 1)


def _data_sets_of(cfg: CfgNode | None) -> list[str]:
    names = [] if cfg is None else [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    if not names:
        raise UserError("no data set to check; give a NAME, or a --config-file that names some")
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    main()
