"""Stands for train_net.py: takes its arguments, trains nothing, and writes results in no time.
It stands for tools/pseudo-labels.py as well.

Environment variables hold parts of output folders: runs in STAND_IN_FAILS fail, those in
STAND_IN_WAITS wait until a signal comes. STAND_IN_LOG is a file that gets a line for each start and
each end.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    words = sys.argv[2:]
    resume = "--resume" in words
    config = words[words.index("--config-file") + 1]
    writes_labels = sys.argv[1].endswith("pseudo-labels.py")
    first = words.index("--output" if writes_labels else "OUTPUT_DIR")
    options = dict(zip(words[first::2], words[first + 1 :: 2], strict=True))
    folder = Path(options["--output" if writes_labels else "OUTPUT_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    log("start", folder, resume)
    if is_named("STAND_IN_WAITS", folder):
        signal.signal(signal.SIGTERM, save_and_exit(folder))
        (folder / "waiting").touch()
        time.sleep(60)
    if is_named("STAND_IN_FAILS", folder):
        print("some output\nerror: the loss is infinite\n", file=sys.stderr)
        sys.exit(1)
    weights = options.get("MODEL.WEIGHTS")
    if weights and not Path(weights).exists():
        sys.exit(f"error: no weights {weights}")
    if writes_labels:
        (folder / "index.json").write_text("{}")
        log("end", folder, resume)
        return
    labels = options.get("MODEL.ADAPTATION.PSEUDO_LABELS")
    if labels and not Path(labels, "index.json").exists():
        sys.exit(f"error: no pseudo-labels {labels}")
    (folder / "inference").mkdir(exist_ok=True)
    # The best rate depends on the start: 0.01 with weights, 0.001 without.
    best = 0.01 if weights else 0.001
    value = 50 + int(options["SEED"]) % 7 + (5 if weights else 0)
    value -= 100 * abs(float(options.get("SOLVER.BASE_LR", best)) - best)
    results = {"sem_seg": {"mIoU": value, "GPUs": int(os.environ.get("CUDA_VISIBLE_DEVICES", -1))}}
    (folder / "inference" / "results.json").write_text(json.dumps(results))
    (folder / "model_final.pth").write_text("weights")
    shutil.copy(config, folder / "config.yaml")
    if count := options.get("DATASETS.LABEL_COUNT"):
        lines = ["[set]", *(f"{i}.png" for i in range(int(count)))]
        (folder / "labelled_images.txt").write_text("\n".join(lines) + "\n")
    log("end", folder, resume)


def is_named(variable: str, folder: Path) -> bool:
    return any(part in str(folder) for part in os.environ.get(variable, "").split())


def log(event: str, folder: Path, resume: bool) -> None:
    with open(os.environ["STAND_IN_LOG"], "a") as file:
        file.write(f"{event} {folder}{' resumed' if resume else ''}\n")


def save_and_exit(folder: Path):
    def handler(*_: object) -> None:
        (folder / "saved").touch()
        sys.exit(143)

    return handler


if __name__ == "__main__":
    main()
