"""Pretrain by denoising on generated data, fine-tune with and without it, and compare.

    python tools/demo.py [--images FOLDER]

Everything goes to output/demo, the result to output/demo/report.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ddep.demo.experiment import run_demo
from ddep.endings import errors_as_lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="pretrain on this folder of images instead")
    args = parser.parse_args()
    with errors_as_lines():
        run_demo(Path("output/demo"), args.images)


if __name__ == "__main__":
    main()
