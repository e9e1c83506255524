"""Draw a trained model's predictions for images.

    python tools/predict.py --config-file CONFIG --input IMAGE-OR-FOLDER ... --output DIR \\
        MODEL.WEIGHTS output/.../model_final.pth

Panoptic, instance or semantic segmentation, or noisy | denoised | clean, as the config says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ddep.endings import errors_as_lines
from ddep.engine import adapt_to_device
from ddep.inference import predict_files
from ddep.tasks import load_config


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="CONFIG")
    parser.add_argument("--input", required=True, nargs="+", type=Path, metavar="IMAGE-OR-FOLDER")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR")
    args, overrides = parser.parse_known_args()
    with errors_as_lines():
        cfg = load_config(args.config_file, overrides)
        adapt_to_device(cfg)
        written = predict_files(cfg, args.input, args.output)
    print(f"{len(written)} pictures in {args.output}")


if __name__ == "__main__":
    main()
