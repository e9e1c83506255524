"""``python -m tests.engine.kill_and_resume pretrain --runs 50``: training survives kill -9.

Trains a tiny model without interruption. Then trains it again and again, in each run killed a few
times, at random moments or while it saves, and resumed: all must end in the same bits.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddep.checkpoint import Checkpointer, read_checkpoint
from ddep.checkpoint.checksum import checksum_file, verify_checksum
from ddep.engine import main as train_net
from tests.adaptation.kinds import adapted_run
from tests.engine.tiny_runs import (
    STATEFUL,
    arguments,
    denoising_config,
    shapes_config,
    shapes_root,
    write_images,
)

PERIOD = 2
SETTINGS = STATEFUL | {
    "SOLVER.MAX_ITER": 7,
    "SOLVER.CHECKPOINT_PERIOD": PERIOD,
    "SOLVER.CHECKPOINTS_TO_KEEP": 2,
    "TEST.EVAL_PERIOD": 3,
}
KINDS: dict[str, dict[str, Any]] = {
    "pretrain": {
        "MODEL.DDEP.SIGMA": "[0.1,0.9]",
        "TEST.BEST_METRIC": "denoising/noise_mse",
        "TEST.BEST_MODE": "min",
    },
    "finetune": {"TEST.BEST_METRIC": "sem_seg/mIoU"},
    # Two streams; a discriminator and its optimizer; a teacher and class shares; prototypes.
    "adversarial": {"TEST.BEST_METRIC": "sem_seg/mIoU"},
    "sac": {"TEST.BEST_METRIC": "sem_seg/mIoU"},
    "prototypes": {"TEST.BEST_METRIC": "sem_seg/mIoU"},
}
MOST_KILLS = 4
# A save of the tiny model takes about as long, most of it for syncing.
SAVING_S = 0.05


@contextlib.contextmanager
def config_of(kind: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The config file of a kind of run and keys on top, whose data lie below ``folder``."""
    if kind == "pretrain":
        yield denoising_config(folder, write_images(folder / "images", 7)), []
        return
    with shapes_root(folder):
        yield (shapes_config(folder), []) if kind == "finetune" else adapted_run(folder, kind)


def start(kind: str, config: tuple[str, list[str]], folder: Path, workers: int) -> int:
    """Start ``train_net.py --resume`` in a process of its own; its id.

    It is forked from this one, which has all modules but no threads, and so needs no seconds to
    import them.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        os.setsid()
        console = os.open(folder / "console.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(console, 1)
        os.dup2(console, 2)
        torch.set_num_threads(1)
        keys = SETTINGS | KINDS[kind] | {"DATALOADER.NUM_WORKERS": workers, "OUTPUT_DIR": folder}
        path, words = config
        words = [*words, *(word for pair in keys.items() for word in pair)]
        train_net(arguments("--config-file", path, "--resume", *words))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def wait(pid: int, seconds: float) -> int | None:
    """The status that a process ends with within ``seconds``, None if it does not."""
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > end:
            return None
        time.sleep(0.001)


def wait_for_save(pid: int, folder: Path, number: int) -> int | None:
    """Wait until the ``number``-th save begins; the status of the process if it ends before."""
    seen: set[str] = set()
    while len(seen) < number:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        seen |= {name for name in os.listdir(folder) if name.endswith(f".pth.{pid}.tmp")}
        time.sleep(0.0002)
    return None


def kill(pid: int) -> None:
    """Kill a process, and then its workers, which would notice a few seconds later."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def check_survivors(folder: Path, at_least: int) -> tuple[int, str]:
    """Check what a kill has left.

    Args:
        folder: of the run.
        at_least: the iteration of the checkpoint that there was before.

    Returns:
        The iteration of the checkpoint that a resumed run will take, -1 for none, and what was
        being done: "saving", "between" the files of a checkpoint, or "training".
    """
    doing = "training"
    for path in folder.glob("*.pth"):
        if not verify_checksum(str(path)):
            doing = "between"
    path = Checkpointer(nn.Module(), str(folder)).get_checkpoint_file()
    iteration = read_checkpoint(path)["iteration"] if path else -1
    assert iteration >= at_least, f"{folder}: back from {at_least} to {iteration}"
    numbers = [int(found[1]) for found in map(numbered, os.listdir(folder)) if found]
    if max(numbers, default=-1) > iteration:
        doing = "between"
    for name in os.listdir(folder):
        if name.endswith(".tmp"):
            doing = "saving"
            found = re.match(r"\.model_(\d{7})\.pth", name)
            assert not found or iteration >= int(found[1]) - PERIOD, "more than an interval is lost"
    return iteration, doing


def numbered(name: str) -> re.Match[str] | None:
    """The match of a periodic checkpoint's name, with its iteration."""
    return re.fullmatch(r"model_(\d{7})\.pth", name)


def killed_run(
    kind: str, config: tuple[str, list[str]], folder: Path, rng: random.Random, whole_s: float
) -> Counter:
    """Train in ``folder`` with a few kills in between; how often what was being done at a kill."""
    folder.mkdir()
    kills: Counter[str] = Counter()
    iteration = -1
    for _ in range(rng.randint(1, MOST_KILLS)):
        pid = start(kind, config, folder, workers=rng.choice([0, 2]))
        if rng.random() < 0.3:
            status = wait(pid, rng.uniform(0, whole_s))
        else:
            status = wait_for_save(pid, folder, rng.randint(1, 3))
            if status is None:
                status = wait(pid, rng.uniform(0, SAVING_S))
        if status is not None:
            break
        kill(pid)
        iteration, doing = check_survivors(folder, iteration)
        kills[doing] += 1
    status = os.waitpid(start(kind, config, folder, workers=0), 0)[1]
    assert status == 0, (folder / "console.txt").read_text()[-3000:]
    return kills


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a checkpoint, by its place."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for key, inner in enumerate(value):
            yield from flatten(inner, f"{name}/{key}")
    else:
        yield name, value


def differences(first: Path, second: Path) -> list[str]:
    """Places at which two checkpoints differ, in any bit of a tensor or in another value."""
    contents = [dict(flatten(read_checkpoint(str(path)))) for path in (first, second)]
    found = sorted(contents[0].keys() ^ contents[1].keys())
    for name in contents[0].keys() & contents[1].keys():
        one, other = (content[name] for content in contents)
        if isinstance(one, torch.Tensor):
            is_same = one.dtype == other.dtype and one.shape == other.shape
            is_same = is_same and one.numpy().tobytes() == other.numpy().tobytes()
        else:
            is_same = one == other
        if not is_same:
            found.append(name)
    return found


def kill_and_resume(kind: str, runs: int, seed: int, folder: Path) -> Counter:
    """Compare ``runs`` killed and resumed runs with an uninterrupted one.

    Returns:
        How many kills there were while the run was training, saving, or between the files of a
        checkpoint.

    Raises:
        AssertionError: a run cannot be resumed, or ends in other bits.
    """
    kills: Counter[str] = Counter()
    with config_of(kind, folder) as config:
        whole = folder / "whole"
        whole.mkdir()
        began = time.monotonic()
        status = os.waitpid(start(kind, config, whole, workers=0), 0)[1]
        assert status == 0, (whole / "console.txt").read_text()[-3000:]
        whole_s = time.monotonic() - began
        for index in range(runs):
            run = folder / f"killed-{index}"
            kills += killed_run(kind, config, run, random.Random(seed + index), whole_s)
            for name in ("model_final.pth", "model_best.pth"):
                found = differences(whole / name, run / name)
                assert not found, f"{run / name} differs in {len(found)} places: {found[:5]}"
            assert os.path.exists(checksum_file(str(run / "model_final.pth")))
            assert names(run) == names(whole), f"{run}: {names(run)}"
    return kills


def names(folder: Path) -> list[str]:
    """Of all checkpoints and temporary files."""
    return sorted(path.name for path in folder.iterdir() if re.search(r"pth|tmp", path.name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kills = kill_and_resume(args.kind, args.runs, args.seed, Path(folder))
    counts = ", ".join(f"{count} {doing}" for doing, count in sorted(kills.items()))
    print(f"{args.kind}: {args.runs} runs, {kills.total()} kills ({counts}): all end bit-equal")


if __name__ == "__main__":
    main()
