"""Write a trained model as a file that runs without this project.

    python tools/export.py --model output/run --to onnx --output model.onnx --post-processing
    python tools/export.py --config-file CONFIG --to torch --output model.pt2 --decompose \\
        MODEL.WEIGHTS output/.../model_final.pth

Segmentation models and denoisers; images of any number and size, as RGB pixels from 0 to 255.
"""

from __future__ import annotations

import argparse

from ddep.endings import errors_as_lines
from ddep.export import SUFFIXES, check_export, export_to_onnx, export_to_torch
from ddep.inference import Predictor


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", metavar="RUN", help="folder of a run: its config and weights")
    source.add_argument("--config-file", metavar="CONFIG", help="with MODEL.WEIGHTS after it")
    parser.add_argument("--to", required=True, choices=SUFFIXES, help="torch.export or ONNX")
    parser.add_argument("--output", required=True, metavar="FILE", help=".pt2 or .onnx")
    parser.add_argument(
        "--post-processing",
        action="store_true",
        help="results are segments, classes of pixels or images instead of what the network gives",
    )
    parser.add_argument(
        "--decompose",
        action="store_true",
        help="--to torch: PyTorch's operators alone, so that the file needs only PyTorch; else its "
        "reader has to import ddep, whose operators are faster. ONNX files always are so",
    )
    parser.add_argument(
        "--size",
        nargs=2,
        type=int,
        metavar=("HEIGHT", "WIDTH"),
        help="in pixels of one image at a time, for models that cannot be traced for all sizes",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    args, overrides = parser.parse_known_args()
    with errors_as_lines():
        check_export(
            args.to,
            args.output,
            decompose=args.decompose,
            size=args.size,
            overwrite=args.overwrite,
        )
        predictor = Predictor(
            args.model or args.config_file,
            overrides=overrides,
            device="cpu" if args.to == "onnx" else None,
        )
        options = {"post_processing": args.post_processing, "size": args.size}
        model = predictor.cfg, predictor.model, args.output
        if args.to == "onnx":
            export_to_onnx(*model, **options)
        else:
            export_to_torch(*model, **options, decompose=args.decompose)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
