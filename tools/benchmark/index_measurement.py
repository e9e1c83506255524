"""Measure time and memory for indexes of millions of images, whose names are generated."""

from __future__ import annotations

import multiprocessing
import os
import platform
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog
from PIL import Image
from tabulate import tabulate

from ddep.config import add_ddep_config
from ddep.data import build_train_loader, register_from_config
from ddep.data.image_index import open_index
from ddep.data.image_index.cache import home_of
from ddep.data.image_index.containers import Container, Listing, status_of
from ddep.data.image_index.folders import list_folder
from ddep.data.image_index.strings import Strings
from ddep.data.image_index.walking import walk
from ddep.data.image_index.write_index import write_index
from ddep.data.samplers import build_train_sampler
from ddep.errors import UserError
from ddep.parallel import available_cores

_BATCH = 256
# Records that each worker reads at random.
_READS = 200_000
_MIB = 2**20
_FORK = multiprocessing.get_context("fork")


@dataclass
class Figures:
    """The measurements for one number of images.

    Times are in seconds, sizes in bytes. ``private`` is memory that no other process shares, and
    ``anonymous`` the part of it that does not belong to a mapped file.
    """

    images: int
    folders: int
    build: float
    size: int
    build_memory: int
    open: float
    batch: float
    train: float
    memory: int
    train_memory: int
    private: float
    anonymous: float


def run_benchmark(sizes: Sequence[int], per_folder: int, workers: int, command: str) -> str:
    """Measure indexes of different sizes, each in its own process.

    Args:
        sizes: numbers of images.
        per_folder: images in each folder.
        workers: processes that read records at once.
        command: for the report.

    Returns:
        A report in Markdown.

    Raises:
        UserError: a number is below 1, or the system has no ``/proc/self/smaps_rollup``.
    """
    for option, least in (("--images", min(sizes)), ("--per-folder", per_folder)):
        if least < 1:
            raise UserError(f"{option} is {least}; expected 1 or more")
    if workers < 1:
        raise UserError(f"--workers is {workers}; expected 1 or more")
    if not Path("/proc/self/smaps_rollup").exists():
        raise UserError("memory is measured with /proc/self/smaps_rollup, which is not here")
    rows = []
    for images in sizes:
        with ProcessPoolExecutor(1, mp_context=_FORK) as pool:
            rows.append(_row(pool.submit(_measure, images, per_folder, workers).result()))
    table = tabulate(rows, headers="keys", tablefmt="pipe", disable_numparse=True)
    return (
        f"- date: {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())}\n"
        f"- machine: {platform.machine()}, {available_cores()} cores; "
        f"Python {platform.python_version()}\n"
        f"- command: `{command}`\n\n{table}"
    )


def _row(figures: Figures) -> dict[str, str]:
    return {
        "images": f"{figures.images:,}",
        "folders": f"{figures.folders:,}",
        "build": f"{figures.build:.1f} s",
        "memory to build": f"{figures.build_memory / _MIB:.0f} MiB",
        "on disk": f"{figures.size / _MIB:.0f} MiB",
        "open": f"{figures.open:.2f} s",
        f"{_BATCH} records": f"{1000 * figures.batch:.1f} ms",
        "memory": f"{figures.memory / _MIB:.1f} MiB",
        "first training batch": f"{figures.train:.1f} s",
        "memory then": f"{figures.train_memory / _MIB:.1f} MiB",
        "private, worker": f"{figures.private / _MIB:.1f} MiB",
        "of this, anonymous": f"{figures.anonymous / _MIB:.1f} MiB",
    }


def _measure(images: int, per_folder: int, workers: int) -> Figures:
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["DDEP_CACHE"] = f"{scratch}/cache"
        root = Path(scratch, "images").resolve()
        folders = -(-images // per_folder)
        for number in range(folders):
            (root / f"n{number:08d}").mkdir(parents=True)
        Path("/proc/self/clear_refs").write_text("5")  # the peak up to now does not count
        before = _memory()["Rss"]
        index_folder = home_of(root) / "index-000001"
        index_folder.parent.mkdir(parents=True)
        started = time.monotonic()
        parts = walk(Container(""), GeneratedImages(root, images, per_folder))
        write_index(index_folder, str(root), parts)
        build = time.monotonic() - started
        build_memory = _peak() - before
        size = sum(path.stat().st_size for path in index_folder.iterdir())
        before = _memory()["Rss"]
        started = time.monotonic()
        index = open_index(root)
        opened = time.monotonic()
        numbers = random.Random(0)
        for _ in range(_BATCH):
            index[numbers.randrange(images)]
        batch = time.monotonic() - opened
        memory = _memory()["Rss"] - before
        grown = _grown_memory(index, workers)
        train, train_memory = _train(root)
        return Figures(
            images=images,
            folders=folders,
            build=build,
            size=size,
            build_memory=build_memory,
            open=opened - started,
            batch=batch,
            train=train,
            memory=memory,
            train_memory=train_memory,
            private=sum(worker["Private"] for worker in grown) / workers,
            anonymous=sum(worker["Anonymous"] for worker in grown) / workers,
        )


class GeneratedImages:
    """Lists folders that exist, and in them images that do not."""

    def __init__(self, root: Path, images: int, per_folder: int) -> None:
        self._root = str(root)
        self._left = images
        self._per_folder = per_folder

    def __call__(self, container: Container) -> Listing:
        status = status_of(os.stat(container.path(self._root)))
        if not container.prefix:
            listing = list_folder(self._root, container, lambda number: None)
            listing.status = status
            return listing
        number = min(self._left, self._per_folder)
        self._left -= number
        name = container.prefix[:-1]
        return Listing(status, Strings.pack(sorted(f"{name}_{i}.JPEG" for i in range(number))), [])


def _train(root: Path) -> tuple[float, int]:
    """Go from a config to the first batch of training.

    The images of that batch are created.

    Returns:
        Seconds, and the growth of memory in bytes.
    """
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.DATASETS.TRAIN = (f"images:{root}",)
    cfg.INPUT.DATASET_MAPPER_NAME = "ddep_denoising"
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = [64, 64]
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    cfg.SOLVER.IMS_PER_BATCH = 64
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = 0
    before = _memory()["Rss"]
    started = time.monotonic()
    register_from_config(cfg, ("TRAIN",))
    loader = build_train_loader(cfg)
    built = time.monotonic() - started
    records = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
    stream = build_train_sampler(cfg, [records]).indices(cfg.SEED, 0)
    for index in islice(stream, cfg.SOLVER.IMS_PER_BATCH):
        Image.new("RGB", (80, 80)).save(records[index]["file_name"])
    del records, stream
    started = time.monotonic()
    batches = iter(loader)  # holds the order of a pass
    next(batches)
    return built + time.monotonic() - started, _memory()["Rss"] - before


def _grown_memory(index: Sequence[dict[str, Any]], workers: int) -> list[dict[str, int]]:
    """Let workers read records at random; return the growth of each one's memory in bytes."""
    barrier, results = _FORK.Barrier(workers), _FORK.Queue()

    def read(seed: int) -> None:
        before = _memory()
        numbers = random.Random(seed)
        barrier.wait()
        for _ in range(_READS):
            index[numbers.randrange(len(index))]
        barrier.wait()  # all have read and are still alive to share memory with
        after = _memory()
        barrier.wait()
        results.put({kind: after[kind] - before[kind] for kind in after})

    processes = [_FORK.Process(target=read, args=(seed,)) for seed in range(workers)]
    for process in processes:
        process.start()
    grown = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return grown


def _memory() -> dict[str, int]:
    """This process's memory in bytes, by kind."""
    found: dict[str, int] = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        kind, amount = line.split(":")
        found[kind] = 1024 * int(amount.split()[0])
    found["Private"] = found["Private_Clean"] + found["Private_Dirty"]
    return {kind: found[kind] for kind in ("Rss", "Private", "Anonymous")}


def _peak() -> int:
    """The peak memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [peak] = [line for line in lines if line.startswith("VmHWM:")]
    return 1024 * int(peak.split()[1])
