"""Convert a pretrained checkpoint for MODEL.WEIGHTS.

    python tools/convert-pretrained.py swin_base_patch4_window12_384_22k.pth swin_base.pth
    python tools/convert-pretrained.py resnet50.pth r50.pth
    python tools/convert-pretrained.py output/ddep_swin/model_final.pth decoder.pth

Reads original Swin checkpoints, torchvision's ResNets, and this project's own, which it slims to
what fine-tuning loads. Prints what matched, what is missing and what is unused.
"""

from __future__ import annotations

import argparse

from ddep.checkpoint.conversion import FORMATS
from ddep.engine import convert_file, errors_as_lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="SRC", help="checkpoint to read")
    parser.add_argument("destination", metavar="DST", help="checkpoint to write, a .pth")
    parser.add_argument("--from", dest="format", default="auto", choices=["auto", *FORMATS])
    parser.add_argument("--overwrite", action="store_true", help="replace DST if it exists")
    args = parser.parse_args()
    with errors_as_lines():
        convert_file(args.source, args.destination, args.format, overwrite=args.overwrite)


if __name__ == "__main__":
    main()
