"""Declare a data set once, in its own file.

A file that adds a data set ends with a call of :func:`declare`. The files of this package are
imported with it; a file elsewhere must be imported by its user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from ddep.data.datasets.catalog import dataset_root
from ddep.parallel import available_cores


@dataclass(frozen=True)
class Option:
    """A whole number or a text that a preparation takes: ``--NAME VALUE`` on the command line."""

    default: int | str
    help: str


# The options of a preparation that uses several processes.
WORKERS = {"workers": Option(available_cores(), "number of worker processes")}


@dataclass(frozen=True)
class Preparation:
    """How ``datasets/prepare.py`` makes a data set.

    Attributes:
        summary: one line about what is written.
        folder: the data set's default folder, relative to $DETECTRON2_DATASETS.
        folder_help: what the folder holds, or what is written to it.
        prepare: called with the source (if there is one), the folder, and the options by name.
            Returns what was written: for each split, a mapping such as {"images": 10}.
        source_help: what the source folder holds; None if the data set's folder is the source.
        options: by name.
        notes: lines to print afterwards, given the folder.
    """

    summary: str
    folder: str
    folder_help: str
    prepare: Callable[..., Mapping[str, Mapping[str, int]]]
    source_help: str | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    notes: Callable[[Path], Iterator[str]] = lambda folder: iter(())


@dataclass(frozen=True)
class DatasetDeclaration:
    """One data set, which may be registered under several names: splits, and kinds of labels.

    ``register`` sets the rest as metadata (see :func:`ddep.data.datasets.catalog.register`):
    classes, the files that must exist, and what it is labelled for.

    Attributes:
        name: what ``datasets/prepare.py`` calls it.
        how_to_get: what to do if files are missing, by a pattern of registered names in
            ``fnmatch``'s syntax. The first pattern that matches counts.
        register: registers all names below a folder, $DETECTRON2_DATASETS; calling it again moves
            them to another folder.
        preparation: None if the files are used as they are distributed.
        check_files: raises :class:`ddep.errors.UserError` if a registered name's files have other
            problems than that they do not exist.
    """

    name: str
    how_to_get: Mapping[str, str]
    register: Callable[[Path], None]
    preparation: Preparation | None = None
    check_files: Callable[[str], None] = lambda name: None


_DECLARATIONS: dict[str, DatasetDeclaration] = {}


def declare(declaration: DatasetDeclaration) -> None:
    """Make a data set known, and register its names below $DETECTRON2_DATASETS.

    An earlier declaration of the same name is replaced.
    """
    _DECLARATIONS[declaration.name] = declaration
    declaration.register(dataset_root())


def declarations() -> list[DatasetDeclaration]:
    """All declarations, sorted by name."""
    return [_DECLARATIONS[name] for name in sorted(_DECLARATIONS)]


def find_declaration(registered: str) -> tuple[DatasetDeclaration, str] | None:
    """The declaration of a registered name, and what to do if its files are missing.

    None if the data set was registered without a declaration.
    """
    for declaration in declarations():
        for pattern, how in declaration.how_to_get.items():
            if fnmatchcase(registered, pattern):
                return declaration, how
    return None
