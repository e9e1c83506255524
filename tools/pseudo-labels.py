"""Write the soft pseudo-labels of target images, for MODEL.ADAPTATION.METHOD prototypes.

    python tools/pseudo-labels.py --model output/RUN --dataset NAME ... --output FOLDER
    python tools/pseudo-labels.py --config-file CONFIG --dataset images:/data/night \\
        --output output/night_labels MODEL.WEIGHTS output/.../model_final.pth

Then train with MODEL.ADAPTATION.PSEUDO_LABELS FOLDER. For the distillation stages (METHOD
distillation) use the adapted model, and --flip as ProDA does. FOLDER gets the probabilities of the
classes at the model's own resolution, 8 bits each, and the mean features of the classes, the
prototypes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ddep.endings import errors_as_lines
from ddep.inference.pseudo_labels import write_pseudo_labels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", metavar="RUN", help="folder of a run")
    model.add_argument("--config-file", metavar="CONFIG", help="with MODEL.WEIGHTS")
    parser.add_argument(
        "--dataset", required=True, nargs="+", metavar="NAME", help="as in DATASETS.TARGET"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored image")
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images of equal size at once"
    )
    parser.add_argument("--resume", action="store_true", help="go on after a stop")
    args, overrides = parser.parse_known_args()
    with errors_as_lines():
        index = write_pseudo_labels(
            args.model or args.config_file,
            args.dataset,
            args.output,
            overrides=overrides,
            flip=args.flip,
            batch=args.batch,
            resume=args.resume,
        )
    for name in index.unreadable:
        print(f"{name} cannot be read and has no pseudo-label")
    print(f"pseudo-labels of {', '.join(index.datasets)} in {args.output}")


if __name__ == "__main__":
    main()
