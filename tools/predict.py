"""Draw a trained model's predictions for images.

    python tools/predict.py --model output/RUN --input IMAGE-OR-FOLDER ... --output DIR
    python tools/predict.py --config-file CONFIG --input IMAGE-OR-FOLDER ... --output DIR \\
        MODEL.WEIGHTS output/.../model_final.pth

Panoptic, instance or semantic segmentation, or noisy | denoised | clean, as the config says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ddep.endings import errors_as_lines
from ddep.inference import predict_files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", metavar="RUN", help="folder of a run")
    model.add_argument("--config-file", metavar="CONFIG", help="with MODEL.WEIGHTS")
    parser.add_argument("--input", required=True, nargs="+", type=Path, metavar="IMAGE-OR-FOLDER")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    args, overrides = parser.parse_known_args()
    with errors_as_lines():
        model = args.model or args.config_file
        written = predict_files(model, args.input, args.output, overrides=overrides)
    print(f"{len(written)} pictures in {args.output}")


if __name__ == "__main__":
    main()
