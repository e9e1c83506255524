"""Run the demonstration's trainings, each as one ``train_net.py`` command."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ddep.data.datasets.image_folder import find_images
from ddep.data.datasets.shapes import generate_shapes
from ddep.demo.report import write_report
from ddep.errors import UserError

SEEDS = (0, 1, 2)
LABELLED = 20  # images to fine-tune on
ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "demo"


@dataclass
class Run:
    """One training and what it measured at its end."""

    folder: Path
    metrics: dict[str, float]
    command: str
    seconds: float


def run_demo(output: Path, images: Path | None = None) -> Path:
    """Generate data, pretrain, fine-tune from the pretrained decoder and from random numbers.

    Both kinds of fine-tuning see the same labelled images in the same order for the same number of
    iterations, once per seed of ``SEEDS``.

    Args:
        output: folder for data, runs and ``report.md``; earlier content is replaced.
        images: folder of images to pretrain on in place of the generated ones.

    Returns:
        The path of the report.

    Raises:
        UserError: no images in ``images``, or a training failed.
    """
    started = time.monotonic()
    if images is not None:
        find_images(images)
    if output.exists():
        shutil.rmtree(output)
    data = output / "datasets"
    _say(f"generating images of textured shapes in {data / 'shapes'}")
    generate_shapes(data / "shapes", train=LABELLED)

    source = (data / "shapes" / "unlabelled" if images is None else images).resolve()
    total = 1 + 2 * len(SEEDS)
    _say(f"training 1 of {total}: pretraining by denoising on {source}")
    pretraining = _train(
        data,
        output / "pretrain",
        CONFIGS / "shapes_pretrain.yaml",
        ["DATASETS.TRAIN", f"('images:{source}',)"],
    )
    weights = {
        "pretrained": str(output / "pretrain" / "model_final.pth"),
        "random": "",
    }
    runs: dict[str, list[Run]] = {start: [] for start in weights}
    number = 1
    for seed in SEEDS:
        for start, path in weights.items():
            number += 1
            _say(f"training {number} of {total}: fine-tuning, {start} start, seed {seed}")
            runs[start].append(
                _train(
                    data,
                    output / f"{start}_seed{seed}",
                    CONFIGS / "shapes_panoptic.yaml",
                    ["MODEL.WEIGHTS", path, "SEED", str(seed)],
                )
            )
    report = write_report(
        output, source, pretraining, runs, data / "shapes", time.monotonic() - started
    )
    _say(f"done in {(time.monotonic() - started) / 60:.1f} minutes; read {report}")
    return report


def _train(data: Path, folder: Path, config: Path, overrides: list[str]) -> Run:
    command = [sys.executable, "train_net.py", "--config-file", str(config.relative_to(ROOT))]
    command += ["OUTPUT_DIR", str(folder.resolve()), *overrides]
    shown = shlex.join(["python", *command[1:]])
    print(shown, flush=True)
    started = time.monotonic()
    environment = {**os.environ, "DETECTRON2_DATASETS": str(data.resolve())}
    status = subprocess.run(command, cwd=ROOT, env=environment).returncode
    if status:
        raise UserError(f"a training of the demo ended with status {status}; see {folder}/log.txt")
    return Run(folder, read_metrics(folder), shown, time.monotonic() - started)


def read_metrics(folder: Path) -> dict[str, float]:
    """The last value of every evaluation metric in ``folder/metrics.json``."""
    metrics: dict[str, float] = {}
    for line in (folder / "metrics.json").read_text().splitlines():
        metrics.update({key: value for key, value in json.loads(line).items() if "/" in key})
    return metrics


def _say(text: str) -> None:
    print(f"\n=== {text}", flush=True)
