"""Does a pretraining help with few labels? Run an experiment, and report on it.

    python tools/label-efficiency.py experiments/demo.yaml --jobs 2

The file names pretrainings, starts, label counts and seeds; docs/experiments.md describes it. The
same command continues where it stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ddep.endings import errors_as_lines
from ddep.experiments.devices import chosen_gpus
from ddep.experiments.experiment_file import read_experiment
from ddep.experiments.label_efficiency import run_experiment


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", metavar="EXPERIMENT.yaml")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="instead of the file's")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (1)")
    parser.add_argument("--gpus", metavar="0,1,...", help="those to use; all that are visible")
    parser.add_argument(
        "--images", metavar="FOLDER", help="pretrain on these, where the file has the key images"
    )
    parser.add_argument(
        "--rerun-changed",
        action="store_true",
        help="remove runs whose settings the file no longer has, and do them again",
    )
    parser.add_argument(
        "--report-only", action="store_true", help="run nothing; report on the runs that are done"
    )
    args = parser.parse_args()
    with errors_as_lines():
        run_experiment(
            read_experiment(args.experiment, args.output, args.images),
            jobs=args.jobs,
            gpus=chosen_gpus(args.gpus),
            rerun_changed=args.rerun_changed,
            report_only=args.report_only,
        )


if __name__ == "__main__":
    main()
