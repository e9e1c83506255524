"""The demonstration's report: commands, results and pictures."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tabulate import tabulate

from ddep.demo.pictures import compare_segmentations
from ddep.files import atomic_write

SEGMENTATION_METRICS = {
    "PQ": "panoptic_seg/PQ",
    "SQ": "panoptic_seg/SQ",
    "RQ": "panoptic_seg/RQ",
    "mIoU": "sem_seg/mIoU",
}


@dataclass
class Run:
    """One training, and the results of the evaluation at its end."""

    folder: Path
    metrics: dict[str, float]  # task/metric
    command: str
    seconds: float


def write_report(
    output: Path,
    source: str,
    pretraining: Run,
    runs: dict[str, list[Run]],
    shapes: Path,
    seconds: float,
) -> Path:
    """Write ``output/report.md`` and the pictures that it shows.

    Args:
        output: the demonstration's folder.
        source: the folder of images that were pretrained on.
        pretraining: the denoising run.
        runs: the fine-tunings of each start ("pretrained", "random"), one per seed.
        shapes: folder of the generated data set.
        seconds: how long everything took.

    Returns:
        The report's path.
    """
    shutil.copy(pretraining.folder / "inference" / "denoising.png", output / "denoising.png")
    compare_segmentations(
        shapes, {start: of_start[0].folder for start, of_start in runs.items()}, output
    )
    seeds = len(runs["random"])
    text = f"""# Pretraining a decoder by denoising: the demonstration

Everything below was measured by the commands shown, in {seconds / 60:.1f} minutes altogether.

## Pretraining

`{pretraining.command}`

{_denoising_table(pretraining)}

Predicting no noise at all scores a noise MSE of 1.0. The training images were those in `{source}`;
the scores are on the validation images of the generated data set.

![noisy, denoised, clean](denoising.png)

*Noisy, denoised, clean.*

## Panoptic fine-tuning

Both starts trained on the same labelled images, in the same order, for as many iterations; only
the initial weights differ. Mean and standard deviation over {seeds} seeds, in percent:

{segmentation_table(runs)}

{conclusion(runs)}

Each seed:

{_seeds_table(runs)}

![truth, pretrained, random](segmentation.png)

*Validation images, their true segments, and those that the two starts found: {" and ".join(runs)}
(first seed).*

## Commands

{_commands(runs)}
"""
    report = output / "report.md"
    with atomic_write(report) as file:
        file.write(text.encode())
    print("\n" + segmentation_table(runs) + "\n\n" + conclusion(runs))
    return report


def segmentation_table(runs: dict[str, list[Run]]) -> str:
    """Mean and sample standard deviation of each metric over the seeds, a row per start."""
    rows = []
    for start, of_start in runs.items():
        cells = [_spread(_values(of_start, key)) for key in SEGMENTATION_METRICS.values()]
        rows.append([f"{start} start", *cells])
    return tabulate(rows, headers=["", *SEGMENTATION_METRICS], tablefmt="github")


def conclusion(runs: dict[str, list[Run]]) -> str:
    """One sentence on the difference in PQ, seed by seed, whichever way it goes."""
    key = SEGMENTATION_METRICS["PQ"]
    difference = _values(runs["pretrained"], key) - _values(runs["random"], key)
    better = int((difference > 0).sum())
    text = (
        f"Pretraining changed PQ by {_spread(difference, sign='+')} points, "
        f"for the better with {better} of {len(difference)} seeds."
    )
    if abs(difference.mean()) <= difference.std(ddof=1):
        text += " That is within the spread over the seeds: these runs do not show a difference."
    return text


def _values(runs: list[Run], key: str) -> np.ndarray:
    return np.array([run.metrics[key] for run in runs])


def _spread(values: np.ndarray, sign: str = "") -> str:
    return f"{values.mean():{sign}.1f} ± {values.std(ddof=1):.1f}"


def _denoising_table(run: Run) -> str:
    metrics = run.metrics
    rows = [
        ["noise MSE", f"{metrics['denoising/noise_mse']:.3f}"],
        ["PSNR of the noisy images", f"{metrics['denoising/psnr_noisy']:.2f} dB"],
        ["PSNR of the denoised images", f"{metrics['denoising/psnr_denoised']:.2f} dB"],
        ["time", f"{run.seconds:.0f} s"],
    ]
    return tabulate(rows, headers=["", "value"], tablefmt="github")


def _seeds_table(runs: dict[str, list[Run]]) -> str:
    rows = [
        [f"{start} start", seed, *(f"{run.metrics[key]:.1f}" for key in keys), f"{run.seconds:.0f}"]
        for keys in [SEGMENTATION_METRICS.values()]
        for start, of_start in runs.items()
        for seed, run in enumerate(of_start)
    ]
    headers = ["", "seed", *SEGMENTATION_METRICS, "seconds"]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def _commands(runs: dict[str, list[Run]]) -> str:
    return "\n".join(f"- `{run.command}`" for of_start in runs.values() for run in of_start)
