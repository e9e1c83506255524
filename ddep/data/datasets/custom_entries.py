"""Read and check the entries of ``DATASETS.CUSTOM``, without looking at files."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.data.datasets.catalog import possible_paths
from ddep.data.datasets.class_folders import PREFIX as CLASSES
from ddep.data.datasets.image_folder import PREFIX as IMAGES
from ddep.errors import UserError

# The required and the optional keys of each kind of data set, besides name and kind.
REQUIRED = {
    "images": ("images",),
    "semantic": ("images", "labels", "classes"),
    "panoptic": ("images", "labels", "json"),
    "instance": ("images", "json"),
    "video": ("images", "json"),
    "classes": ("images", "csv"),
}
OPTIONAL = {
    "images": (),
    "semantic": ("ignore",),
    "panoptic": ("semantic_labels", "ignore", "classes"),
    "instance": ("classes",),
    "video": ("classes",),
    "classes": ("classes",),
}
# The keys that are paths, and whether they name a file (or a folder).
IS_FILE = {
    "images": False,
    "labels": False,
    "semantic_labels": False,
    "json": True,
    "csv": True,
    "classes": True,
}
_README = "datasets/README.md shows an entry of each kind"


@dataclass(frozen=True)
class CustomEntry:
    """An entry of ``DATASETS.CUSTOM`` with valid keys.

    Attributes:
        where: the entry's position and name, with which errors begin.
        name: of the data set.
        kind: a key of ``REQUIRED``.
        values: its other keys, as the config has them.
    """

    where: str
    name: str
    kind: str
    values: Mapping[str, Any]

    def path(self, key: str) -> Path:
        """The absolute path that ``key`` names, or where it should be."""
        places = possible_paths(self.values[key])
        return next((place for place in places if place.exists()), places[0])

    def check_path(self, key: str) -> None:
        """Raise :class:`UserError` unless the file or folder that ``key`` names exists."""
        path, expected = self.path(key), "file" if IS_FILE[key] else "folder"
        if not path.exists():
            looked = " and ".join(map(str, possible_paths(self.values[key])))
            raise self.error(f"{key} {self.values[key]} does not exist; looked for {looked}")
        if path.is_file() != IS_FILE[key]:
            found = "file" if path.is_file() else "folder"
            raise self.error(f"{key} {path} is a {found}; expected a {expected}")

    def error(self, message: str) -> UserError:
        return UserError(f"{self.where}: {message}")


def read_entries(custom: Iterable[Any] | None) -> list[CustomEntry]:
    """Check the entries of ``DATASETS.CUSTOM``; None, from a key without a value, has none.

    Raises:
        UserError: not a mapping; a key that is missing, unknown or of the wrong type; an unknown
            kind; a name that is taken.
    """
    entries = [_read_entry(position, item) for position, item in enumerate(custom or (), start=1)]
    first: dict[str, CustomEntry] = {}
    for entry in entries:
        if first.setdefault(entry.name, entry) is not entry:
            raise UserError(
                f"{entry.where} has the name of {first[entry.name].where.split(', ')[1]}; "
                "choose another name"
            )
    return entries


def custom_entry(name: str) -> CustomEntry | None:
    """The entry of DATASETS.CUSTOM that the registered data set ``name`` comes from, if any."""
    return MetadataCatalog.get(name).get("custom_entry")


def _read_entry(position: int, item: Any) -> CustomEntry:
    where = f"DATASETS.CUSTOM, entry {position}"
    if not isinstance(item, Mapping):
        raise UserError(f"{where} is {item!r}; expected a mapping with name and kind; {_README}")
    name = item.get("name")
    if not isinstance(name, str) or not name.strip():
        found = f": name is {name!r}" if "name" in item else " has no name"
        raise UserError(f"{where}{found}; expected text, for TRAIN and TEST to name it by")
    where = f"{where} ({name})"
    for prefix in (IMAGES, CLASSES):
        if name.startswith(prefix):
            raise UserError(f"{where}: a name cannot begin with {prefix}, which is for folders")
    if name in DatasetCatalog and custom_entry(name) is None:
        raise UserError(f"{where}: there is another data set of that name; choose another name")
    kind = item.get("kind")
    if not isinstance(kind, str) or kind not in REQUIRED:
        found = f": kind is {kind!r}{_hint(kind, REQUIRED)}" if "kind" in item else " has no kind"
        raise UserError(f"{where}{found}; expected {' or '.join(REQUIRED)}")
    values = {key: value for key, value in item.items() if key not in ("name", "kind")}
    entry = CustomEntry(where, name, kind, values)
    _check_keys(entry)
    return entry


def _check_keys(entry: CustomEntry) -> None:
    required, optional = REQUIRED[entry.kind], OPTIONAL[entry.kind]
    may = f" and may have {', '.join(optional)}" if optional else ""
    expected = f"kind {entry.kind} has {', '.join(required)}{may}"
    for key in entry.values:
        if key not in required + optional:
            hint = _hint(key, [k for k in required + optional if k not in entry.values])
            raise entry.error(f"unknown key {key}{hint}; {expected}")
    for key in required:
        if key not in entry.values:
            raise entry.error(f"{key} is missing; {expected}; {_README}")
    values = entry.values
    for key, value in values.items():
        if key == "classes" and isinstance(value, (list, tuple)):
            continue
        if key == "ignore":
            if type(value) is not int or value < 0:
                raise entry.error(f"ignore is {value!r}; expected a whole number of at least 0")
        elif not (isinstance(value, str) and value.strip()):
            names = "a list of names, or " if key == "classes" else ""
            raise entry.error(f"{key} is {value!r}; expected {names}a path")
    if entry.kind == "panoptic" and "ignore" in values and "semantic_labels" not in values:
        raise entry.error(
            "ignore is about semantic_labels, which are missing; 0 is void in panoptic labels"
        )


def _hint(word: Any, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""
