"""The data sets, each declared in a file of its own.

Importing this package registers them below $DETECTRON2_DATASETS.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.declaration import declarations
from ddep.data.datasets.from_config import register_from_config
from ddep.data.datasets.label_kinds import labelled_for

__all__ = [
    "data_sets_below",
    "dataset_root",
    "labelled_for",
    "register_all",
    "register_from_config",
]


def register_all(root: Path) -> None:
    """Register the names of all declared data sets below ``root``.

    Calling this again moves them to another root.
    """
    for declaration in declarations():
        declaration.register(root)


@contextmanager
def data_sets_below(root: Path | None) -> Iterator[None]:
    """Inside, $DETECTRON2_DATASETS is ``root`` in this process; None changes nothing."""
    if root is None:
        yield
        return
    usual = os.environ.get("DETECTRON2_DATASETS")
    os.environ["DETECTRON2_DATASETS"] = str(root)
    register_all(dataset_root())
    try:
        yield
    finally:
        if usual is None:
            del os.environ["DETECTRON2_DATASETS"]
        else:
            os.environ["DETECTRON2_DATASETS"] = usual
        register_all(dataset_root())


# Data sets declare themselves when their file is imported.
for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
