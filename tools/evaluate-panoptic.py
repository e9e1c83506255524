"""Compute the panoptic quality of predictions in COCO's panoptic format, as panopticapi does.

    python tools/evaluate-panoptic.py --gt-json panoptic_val2017.json --gt-dir panoptic_val2017 \\
        --pred-json predictions.json --pred-dir panoptic_predictions --out quality.json

Prints PQ, SQ and RQ in percent for all classes, things, stuff and each class, with the number of
segments that are matched (TP), false (FP) and missed (FN).
"""

from __future__ import annotations

import argparse

from ddep.endings import errors_as_lines
from ddep.errors import UserError
from ddep.evaluation.panoptic_files import PanopticFiles, evaluate_panoptic_files
from ddep.evaluation.panoptic_quality import quality_table
from ddep.output_files import check_replaces_nothing, check_writable, write_json
from ddep.parallel import available_cores, check_workers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gt-json", required=True, metavar="FILE", help="ground truth")
    parser.add_argument("--gt-dir", required=True, metavar="FOLDER", help="its PNG files")
    parser.add_argument("--pred-json", required=True, metavar="FILE", help="predictions")
    parser.add_argument("--pred-dir", required=True, metavar="FOLDER", help="their PNG files")
    parser.add_argument("--out", metavar="FILE", help="JSON file to write all numbers to")
    parser.add_argument("--overwrite", action="store_true", help="replace --out if it exists")
    parser.add_argument(
        "--workers", type=int, default=available_cores(), help="processes (default: %(default)s)"
    )
    args = parser.parse_args()
    with errors_as_lines():
        check_workers(args.workers)
        if args.out:
            inputs = {"--gt-json": args.gt_json, "--pred-json": args.pred_json}
            check_replaces_nothing("--out", args.out, inputs, overwrite=args.overwrite)
            if args.out.endswith(".png"):  # probably a file of the input folders, by mistake
                raise UserError(f"--out {args.out}: what is written is a .json; name it so")
            check_writable("--out", args.out)
        result = evaluate_panoptic_files(
            PanopticFiles(args.gt_json, args.gt_dir),
            PanopticFiles(args.pred_json, args.pred_dir),
            args.workers,
        )
        print(quality_table(result.statistics, result.categories))
        if result.ignored:
            print(f"{result.ignored} predicted images have no ground truth and do not count")
        if args.out:
            write_json(args.out, result.to_json())


if __name__ == "__main__":
    main()
