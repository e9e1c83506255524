"""Read the classes of the data sets in ``DATASETS.CUSTOM``, from the config or a JSON file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.utils.colormap import colormap

from ddep.data.datasets.custom_entries import CustomEntry
from ddep.data.datasets.instances import ANNOTATION_KEYS
from ddep.data.datasets.panoptic import Category
from ddep.data.datasets.video_json import FORMAT, TRACK_KEYS
from ddep.data.json_file import read_json
from ddep.errors import UserError

# Keys of each annotation, by kind.
_ANNOTATION_KEYS = {
    "panoptic": ("image_id", "file_name", "segments_info"),
    "instance": ANNOTATION_KEYS,
    "video": TRACK_KEYS,
}
# The key that tells the kinds apart.
_MARK = {"panoptic": "segments_info", "instance": "segmentation", "video": "segmentations"}
# Formats and the lists that files in them have. The others are in COCO's.
_COCO = "COCO's format", ("images", "annotations", "categories")
_FORMATS = {"video": (FORMAT, ("videos", "annotations", "categories"))}


def read_class_names(entry: CustomEntry) -> list[str]:
    """Read the names of an entry's classes: a list, or the lines of a file.

    Raises:
        UserError: a file that cannot be read; no class; a class without a name, or with the name of
            another.
    """
    given = entry.values["classes"]
    source, names = "classes", list(given)
    if isinstance(given, str):
        entry.check_path("classes")
        source = f"classes {entry.path('classes')}"
        names = _read_lines(entry, source)
    for position, name in enumerate(names):
        if not isinstance(name, str):
            raise entry.error(
                f"class {position} of {source} is {name!r}; expected text: put it in quotes"
            )
        if not name.strip():
            raise entry.error(f"class {position} of {source} has no name; expected one")
    _check_names(entry, source, names)
    return names


def check_ignore_label(entry: CustomEntry, number: int, ignore_label: int) -> None:
    """Raise :class:`UserError` if ``ignore_label`` is one of ``number`` classes."""
    if ignore_label < number:
        raise entry.error(
            f"ignore is {ignore_label}, which is a class: there are {number} classes, 0 to "
            f"{number - 1}; expected a larger number, such as {max(255, number)}, and labels to "
            "match"
        )


def read_categories(entry: CustomEntry) -> list[Category]:
    """Read the categories of the entry's JSON file, by ascending id.

    Those of instance and video annotations are all things. Categories without a colour get one of
    detectron2's.

    Raises:
        UserError: not a JSON file in the format of the entry's kind; two categories with the
            same name or id; categories that differ from ``classes``.
    """
    entry.check_path("json")
    path = entry.path("json")
    form, lists = _FORMATS.get(entry.kind, _COCO)
    try:
        content = read_json(path, lists, form)
    except UserError as error:
        raise entry.error(f"json {error}") from error
    _check_annotations(entry, path, content["annotations"])
    for position, category in enumerate(content["categories"], start=1):
        _check_category(entry, f"category {position} of json {path}", category)
    categories: list[Category] = [
        {
            "id": category["id"],
            "name": category["name"],
            "isthing": category["isthing"] if entry.kind == "panoptic" else 1,
            "color": _color(category, position),
        }
        for position, category in enumerate(sorted(content["categories"], key=lambda c: c["id"]))
    ]
    names = [category["name"] for category in categories]
    _check_names(entry, f"categories of json {path}", names)
    times = Counter(category["id"] for category in categories)
    twice = [number for number, count in times.items() if count > 1]
    if twice:
        raise entry.error(f"json {path} has two categories with id {twice[0]}; expected one")
    if "classes" in entry.values:
        _compare(entry, path, read_class_names(entry), names)
    return categories


def default_colors(number: int) -> list[list[int]]:
    """[R, G, B], 0..255, for each of ``number`` classes: detectron2's colours, repeated."""
    colors = colormap(rgb=True).round().astype(int).tolist()
    return [colors[position % len(colors)] for position in range(number)]


def _read_lines(entry: CustomEntry, source: str) -> list[str]:
    try:
        lines = entry.path("classes").read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise entry.error(f"{source} is not UTF-8 text; expected one name per line") from error
    except OSError as error:
        raise entry.error(f"{source} cannot be read: {error.strerror}") from error
    return [line.strip() for line in lines]


def _check_names(entry: CustomEntry, source: str, names: Sequence[str]) -> None:
    if not names:
        raise entry.error(f"{source} has no class; expected at least one")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        places = [str(position) for position, name in enumerate(names) if name == twice[0]]
        raise entry.error(
            f"{source} has {twice[0]!r} as classes {' and '.join(places)}; expected different names"
        )


def _check_annotations(entry: CustomEntry, path: Path, annotations: Sequence[Any]) -> None:
    kind = entry.kind
    form, _ = _FORMATS.get(kind, _COCO)
    for position, annotation in enumerate(annotations, start=1):
        found = annotation.keys() if isinstance(annotation, dict) else ()
        others = [other for other, mark in _MARK.items() if mark in found]
        if others and _MARK[kind] not in found:
            raise entry.error(f"json {path} has {others[0]} annotations; expected {kind} ones")
        lacking = [key for key in _ANNOTATION_KEYS[kind] if key not in found]
        if lacking:
            raise entry.error(
                f"annotation {position} of json {path} lacks {', '.join(lacking)}, which {form} "
                f"has of {kind} annotations"
            )


def _check_category(entry: CustomEntry, what: str, category: Any) -> None:
    expected = {"id": "a whole number", "name": "text"}
    if entry.kind == "panoptic":
        expected["isthing"] = "0 or 1"
    is_valid = {
        "id": lambda value: type(value) is int,
        "name": lambda value: isinstance(value, str) and bool(value.strip()),
        "isthing": lambda value: value in (0, 1),
    }
    for key, wanted in expected.items():
        value = category.get(key) if isinstance(category, dict) else None
        if not is_valid[key](value):
            raise entry.error(f"{key} of {what} is {value!r}; expected {wanted}")


def _color(category: dict[str, Any], position: int) -> list[int]:
    color = category.get("color")
    if isinstance(color, list) and len(color) == 3:
        return color
    return default_colors(position + 1)[position]


def _compare(entry: CustomEntry, path: Path, given: list[str], found: list[str]) -> None:
    if given == found:
        return
    for position in range(max(len(given), len(found))):
        pair = [names[position] if position < len(names) else None for names in (given, found)]
        if pair[0] != pair[1]:
            own, theirs = ("absent" if name is None else repr(name) for name in pair)
            raise entry.error(
                f"class {position} is {own} by classes, and {theirs} by the categories of json "
                f"{path} in the order of their ids; expected the same, or no classes"
            )
