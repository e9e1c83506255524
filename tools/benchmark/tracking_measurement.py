"""Predict videos of several lengths, each in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from detectron2.modeling import build_model
from tabulate import tabulate

from benchmark_page import cpu_name
from ddep.errors import UserError
from ddep.inference.video_writing import new_video
from ddep.parallel import available_cores
from ddep.tasks import load_config

_ROOT = Path(__file__).parents[2]


class Measurement(NamedTuple):
    """What a video took.

    Attributes:
        frames, tracks: of the video.
        seconds: of the process, from start to end.
        memory_bytes: its peak.
        file_bytes: of the JSON file of tracks.
    """

    frames: int
    tracks: int
    seconds: float
    memory_bytes: int
    file_bytes: int


def run_benchmark(config: str, lengths: Sequence[int], size: int, command: str) -> str:
    """Measure each length.

    Args:
        config: a YAML file.
        lengths: of videos, frames.
        size: of their frames, pixels.
        command: for the table's heading.

    Returns:
        A table in Markdown.

    Raises:
        UserError: a length or size that is not positive, a model that follows no objects.
    """
    for option, values in (("--frames", lengths), ("--size", [size])):
        for value in values:
            if value < 1:
                raise UserError(f"{option} is {value}; expected 1 or more")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "weights.pth"
        torch.manual_seed(0)
        model = build_model(load_config(config, ["MODEL.DEVICE", "cpu"]))
        if not hasattr(model, "track"):
            raise UserError(f"--config-file {config} has no model that follows objects in videos")
        torch.save({"model": model.state_dict()}, weights)
        rows = [_measure(config, weights, folder, length, size) for length in lengths]
    table = tabulate(
        [
            [
                f"{row.frames:,}",
                row.tracks,
                f"{row.seconds:.1f} s",
                f"{row.memory_bytes / 2**20:.0f} MiB",
                f"{row.file_bytes / 2**20:.1f} MiB",
            ]
            for row in rows
        ],
        headers=["frames", "tracks", "time", "peak memory", "file of tracks"],
        tablefmt="pipe",
        disable_numparse=True,
    )
    return (
        f"- date: {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}\n"
        f"- machine: {cpu_name()}, {available_cores()} cores; Python {platform.python_version()}\n"
        f"- command: `{command}`\n\n{table}"
    )


def _measure(config: str, weights: Path, folder: Path, length: int, size: int) -> Measurement:
    video, output = folder / f"{length}.avi", folder / "output"
    generator = np.random.default_rng(0)
    with new_video(video, 25) as add:
        for _ in range(length):
            add(generator.integers(0, 256, (size, size, 3), dtype=np.uint8))
    words = [sys.executable, str(_ROOT / "tools" / "predict.py"), "--config-file", config]
    words += ["--input", str(video), "--output", str(output), "--save", "tracks"]
    words += ["MODEL.WEIGHTS", str(weights), "MODEL.DEVICE", "cpu"]
    words += ["TEST.CLIP.SCORE_THRESHOLD", "0.0", "TEST.CLIP.NEW_THRESHOLD", "0.0"]
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise UserError(f"tools/predict.py ended with status {process.returncode}; see above")
    path = output / "tracks" / f"{length}.json"
    tracks = len(json.loads(path.read_bytes())["annotations"])
    return Measurement(length, tracks, seconds, usage.ru_maxrss * 1024, path.stat().st_size)
