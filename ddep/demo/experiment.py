"""Run the demonstration's trainings, each as one ``train_net.py`` command."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ddep.data.datasets.image_folder import find_images
from ddep.data.datasets.shapes import generate_shapes
from ddep.demo.report import Run, write_report
from ddep.errors import UserError

SEEDS = (0, 1, 2)
LABELLED = 20  # images to fine-tune on
ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs" / "demo"


def run_demo(output: Path, images: Path | None = None) -> Path:
    """Generate data, pretrain, fine-tune from the pretrained decoder and from random numbers.

    Both kinds of fine-tuning see the same labelled images in the same order for the same number of
    iterations, once per seed of ``SEEDS``. The two of a seed run side by side.

    Args:
        output: folder for data, runs and ``report.md``; earlier content is replaced.
        images: folder of images to pretrain on in place of the generated ones.

    Returns:
        The path of the report.

    Raises:
        UserError: no images in ``images``, or a training failed.
    """
    started = time.monotonic()
    output = output.resolve()
    if images is not None:
        find_images(images)
        if images.resolve().is_relative_to(output):
            raise UserError(f"--images {images} is in {output}, which is replaced; move it out")
    if output.exists():
        shutil.rmtree(output)
    data = output / "datasets"
    _say(f"generating images of textured shapes in {_shown(data / 'shapes')}")
    generate_shapes(data / "shapes", train=LABELLED)

    source = _shown((data / "shapes" / "unlabelled" if images is None else images).resolve())
    _say(f"pretraining by denoising on {source}")
    pretraining = _train(
        data,
        output / "pretrain",
        CONFIGS / "shapes_pretrain.yaml",
        ["DATASETS.TRAIN", f"({json.dumps(f'images:{source}')},)"],
    )
    weights = {
        "pretrained": _shown(output / "pretrain" / "model_final.pth"),
        "random": "",
    }
    runs: dict[str, list[Run]] = {start: [] for start in weights}
    for seed in SEEDS:
        _say(f"fine-tuning from the pretrained decoder and from random numbers, seed {seed}")
        overrides = {
            start: ["MODEL.WEIGHTS", path, "SEED", str(seed)] for start, path in weights.items()
        }
        with ThreadPoolExecutor() as pool:
            pair = {
                start: pool.submit(
                    _train,
                    data,
                    output / f"{start}_seed{seed}",
                    CONFIGS / "shapes_panoptic.yaml",
                    overrides[start],
                    processes=len(weights),
                    prefix=f"[{start}] ",
                )
                for start in weights
            }
        for start, run in pair.items():
            runs[start].append(run.result())
    report = write_report(
        output, source, pretraining, runs, data / "shapes", time.monotonic() - started
    )
    _say(f"done in {(time.monotonic() - started) / 60:.1f} minutes; read {report}")
    return report


def _train(
    data: Path,
    folder: Path,
    config: Path,
    overrides: list[str],
    processes: int = 1,
    prefix: str = "",
) -> Run:
    """Run ``train_net.py``, one of ``processes`` that share the cores, and print what it prints."""
    arguments = ["train_net.py", "--config-file", _shown(config), "OUTPUT_DIR", _shown(folder)]
    arguments += overrides
    shown = f"DETECTRON2_DATASETS={shlex.quote(_shown(data))} {shlex.join(['python', *arguments])}"
    print(f"{prefix}{shown}", flush=True)
    environment = {
        **os.environ,
        "DETECTRON2_DATASETS": str(data),
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
    }
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        for line in process.stdout:
            print(f"{prefix}{line}", end="", flush=True)
    if process.returncode:
        raise UserError(f"a training of the demo failed: {shown}; its log is {folder / 'log.txt'}")
    return Run(folder, read_metrics(folder), shown, time.monotonic() - started)


def read_metrics(folder: Path) -> dict[str, float]:
    """The results of the evaluation at the end of a run, as ``task/metric``."""
    results = json.loads((folder / "inference" / "results.json").read_text())
    return {
        f"{task}/{name}": value
        for task, metrics in results.items()
        for name, value in metrics.items()
    }


def _shown(path: Path) -> str:
    """``path`` as a user types it in the project's folder, where the trainings run."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def _say(text: str) -> None:
    print(f"\n=== {text}", flush=True)
