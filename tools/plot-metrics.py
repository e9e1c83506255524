"""Plot losses, PSNR, mIoU, PQ and AP of several runs in one picture.

    python tools/plot-metrics.py output/pretrained output/random --output curves.png
    python tools/plot-metrics.py output/run --metrics total_loss grad_norm

RUN is the OUTPUT_DIR of a training, which may still be running.
"""

from __future__ import annotations

import argparse

from ddep.endings import errors_as_lines
from ddep.experiments.metric_curves import plot_metrics


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="output folder of a training")
    parser.add_argument("--metrics", metavar="NAME", nargs="+", default=(), help="see metrics.json")
    parser.add_argument("--output", metavar="FILE", default="metrics.png", help="%(default)s")
    args = parser.parse_args()
    with errors_as_lines():
        plot_metrics(args.runs, args.output, args.metrics)
        print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
