"""Fixtures of all tests: real images, seeds, logs, threads, and no data sets of the user."""

from __future__ import annotations

import logging
import os
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


# detectron2 reads this on import, and other conftests import it; commands in tests inherit it.
os.environ["DETECTRON2_DATASETS"] = str(ROOT / "tests" / "no-data-sets")
# More threads than two only slow down tensors as small as the tests'; one, where files of tests run
# side by side.
THREADS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
torch.set_num_threads(min(THREADS, torch.get_num_threads()))
# Shells start background jobs with Ctrl-C ignored; commands in tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Files that take minutes come first, so that none of them is left over at the end for one process.
LONGEST = ("test_real_images.py", "test_real_runs.py", "test_exact_resume.py", "test_sanitizers.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the longest files to the front."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep indexes of images apart from the user's, also in commands that tests start."""
    os.environ["DDEP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Start every test from the same random numbers."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def logs() -> None:
    """Let pytest see the project's logs.

    In an earlier test's run, detectron2 hid them and sent them to an output that is closed by now.
    """
    from detectron2.utils.logger import setup_logger

    logging.getLogger("ddep").propagate = True
    setup_logger.cache_clear()
    for name in ("fvcore", "detectron2", "ddep"):
        logging.getLogger(name).handlers.clear()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the repository; without it, its tests are skipped."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs the images in {folder}")
    return folder
