"""Locate data sets, and register them in detectron2's catalogues."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.data.record import Record


def dataset_root() -> Path:
    """The folder that holds all data sets: $DETECTRON2_DATASETS, else ``datasets``."""
    return Path(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))


def possible_paths(given: str) -> list[Path]:
    """The absolute paths that a path in a config may mean, in order of preference.

    A relative path is looked for in the working directory, then in $DETECTRON2_DATASETS.
    """
    path = Path(given).expanduser()
    return list(dict.fromkeys([path.absolute(), (dataset_root() / path).absolute()]))


def register(name: str, load: Callable[[], Sequence[Record]], **metadata: Any) -> None:
    """Register a data set in detectron2's catalogues; one of the same name is replaced.

    Args:
        name: what configs call the data set.
        load: returns its records, in detectron2's standard format. Called when they are needed.
        metadata: attributes of ``MetadataCatalog.get(name)``, among them ``labelled_for``, what it
            has labels for (see :mod:`ddep.data.datasets.label_kinds`), and ``required_files``, the
            attributes that are paths which must exist.
    """
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**metadata)
