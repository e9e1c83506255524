"""The main job on generated data: pretrain by denoising, fine-tune with and without, compare.

    python tools/demo.py [--images FOLDER]

Everything goes to output/demo, the result to output/demo/report.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ddep.demo.experiment import run_demo
from ddep.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="pretrain on this folder of images instead")
    args = parser.parse_args()
    try:
        run_demo(Path("output/demo"), args.images)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
