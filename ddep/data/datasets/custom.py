"""Users' own data sets, as ``DATASETS.CUSTOM`` describes them.

Six kinds: ``images`` without labels, ``classes`` (a CSV file with the classes of each image),
``semantic`` (a folder of label images), ``panoptic`` (COCO's panoptic JSON and PNG files),
``instance`` (COCO's instance JSON) and ``video`` (YouTube-VIS's JSON). They have the same records
and metadata as the built-in sets.
"""

from __future__ import annotations

from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog

from ddep.data.datasets.catalog import register
from ddep.data.datasets.class_lists import ClassList, register_class_list
from ddep.data.datasets.custom_classes import (
    check_ignore_label,
    default_colors,
    read_categories,
    read_class_names,
)
from ddep.data.datasets.custom_entries import IS_FILE, CustomEntry, read_entries
from ddep.data.datasets.image_folder import PREFIX, check_image_folder, load_image_folder
from ddep.data.datasets.instances import register_instances
from ddep.data.datasets.label_kinds import SEMANTIC
from ddep.data.datasets.paired_folders import PairedFolders
from ddep.data.datasets.panoptic import (
    IGNORE_LABEL,
    PanopticSplit,
    register_panoptic,
)
from ddep.data.datasets.video import register_videos
from ddep.data.record import Record
from ddep.errors import UserError


def register_custom_sets(cfg: CfgNode, strict: bool = True) -> None:
    """Register the entries of ``DATASETS.CUSTOM`` that DATASETS.TRAIN or TEST name.

    Images and labels need not exist: :func:`check_custom_files` and :func:`check_custom_labels`
    check them.

    Args:
        cfg: the config.
        strict: whether the classes must be known; if not, the error is raised when the set is
            loaded.

    Raises:
        UserError: an incomplete or contradictory entry; classes that cannot be read.
    """
    named = {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST}
    for entry in read_entries(cfg.DATASETS.CUSTOM):
        if entry.name not in named:
            continue
        try:
            _REGISTER[entry.kind](entry)
        except UserError as error:
            if strict:
                raise
            _register_without_classes(entry, error)


def check_custom_files(entry: CustomEntry) -> None:
    """Raise :class:`UserError` unless all files and folders that an entry names exist."""
    keys = entry.values.keys() & IS_FILE.keys()
    if entry.kind in ("images", "classes"):
        try:
            check_image_folder(_images(entry))
        except UserError as error:
            found = str(error).removeprefix(f"data set {_images(entry)}: ")
            raise entry.error(f"images: {found}") from error
        keys.remove("images")  # which may be a tar file
    for key in keys:
        if isinstance(entry.values[key], str):
            entry.check_path(key)
    if entry.kind == "semantic" and entry.path("images").samefile(entry.path("labels")):
        raise entry.error("images and labels are the same folder; expected a folder for each")


def check_custom_labels(entry: CustomEntry) -> None:
    """Raise :class:`UserError` if an entry's labels do not fit its images; opens no image."""
    if entry.kind == "images":
        return
    try:
        DatasetCatalog.get(entry.name)
    except UserError as error:
        where = "" if str(error).startswith(entry.where) else f"{entry.where}: "
        raise UserError(f"{where}{error}") from error


def _register_images(entry: CustomEntry) -> None:
    register(
        entry.name,
        lambda: load_image_folder(_images(entry)),
        evaluator_type="images",
        labelled_for=(),
        custom_entry=entry,
    )


def _register_classes(entry: CustomEntry) -> None:
    classes = read_class_names(entry) if "classes" in entry.values else None
    entry.check_path("csv")
    try:
        class_list = ClassList.read(entry.path("csv"), classes)
    except UserError as error:
        raise entry.error(f"csv {error}") from error
    register_class_list(entry.name, _images(entry), class_list, custom_entry=entry)


def _register_semantic(entry: CustomEntry) -> None:
    classes = read_class_names(entry)
    check_ignore_label(entry, len(classes), _ignore_label(entry))
    register(
        entry.name,
        lambda: _load_semantic(entry),
        stuff_classes=classes,
        stuff_colors=default_colors(len(classes)),
        evaluator_type="sem_seg",
        labelled_for=SEMANTIC,
        ignore_label=_ignore_label(entry),
        custom_entry=entry,
        **_paths(entry),
    )


def _register_panoptic(entry: CustomEntry) -> None:
    categories = read_categories(entry)
    has_semantic = "semantic_labels" in entry.values
    if has_semantic:
        check_ignore_label(entry, len(categories), _ignore_label(entry))
    split = PanopticSplit(
        image_root=entry.path("images"),
        panoptic_root=entry.path("labels"),
        panoptic_json=entry.path("json"),
        sem_seg_root=entry.path("semantic_labels") if has_semantic else None,
    )
    register_panoptic(
        entry.name, split, categories, ignore_label=_ignore_label(entry), custom_entry=entry
    )


def _register_instance(entry: CustomEntry) -> None:
    register_instances(
        entry.name,
        entry.path("images"),
        entry.path("json"),
        read_categories(entry),
        custom_entry=entry,
    )


def _register_video(entry: CustomEntry) -> None:
    register_videos(
        entry.name,
        entry.path("images"),
        entry.path("json"),
        read_categories(entry),
        custom_entry=entry,
    )


_REGISTER: dict[str, Callable[[CustomEntry], None]] = {
    "images": _register_images,
    "classes": _register_classes,
    "semantic": _register_semantic,
    "panoptic": _register_panoptic,
    "instance": _register_instance,
    "video": _register_video,
}
# The metadata that hold an entry's paths, by kind and key.
_ATTRIBUTES = {
    "images": {},
    "classes": {},
    "semantic": {"images": "image_root", "labels": "sem_seg_root"},
    "panoptic": {"images": "image_root", "labels": "panoptic_root", "json": "panoptic_json"},
    "instance": {"images": "image_root", "json": "json_file"},
    "video": {"images": "image_root", "json": "json_file"},
}


def _register_without_classes(entry: CustomEntry, error: UserError) -> None:
    def load() -> list[Record]:
        raise error

    register(entry.name, load, custom_entry=entry, **_paths(entry))


def _paths(entry: CustomEntry) -> dict[str, str]:
    return {name: str(entry.path(key)) for key, name in _ATTRIBUTES[entry.kind].items()}


def _load_semantic(entry: CustomEntry) -> list[Record]:
    """Pair images and labels by their paths without endings, relative to the two folders.

    Returns:
        One record per image, sorted by name: file_name and sem_seg_file_name.

    Raises:
        UserError: an image without a label, a label without an image, two files of one name.
    """
    found = PairedFolders.read(entry.path("images"), entry.path("labels"))
    for first, second in found.repeated:
        raise entry.error(
            f"{first} and {second} differ only in their endings; expected one file per name, and "
            "images and labels in separate folders"
        )
    for key, other, unpaired in (
        ("images", "labels", found.images_without_label()),
        ("labels", "images", found.labels_without_image()),
    ):
        if unpaired:
            raise entry.error(
                f"{unpaired[0]} ({len(unpaired)} of {len(getattr(found, key))} {key}) has no file "
                f"of its name in {other} {entry.path(other)}; expected a label for each image"
            )
    return found.pairs()


def _ignore_label(entry: CustomEntry) -> int:
    return entry.values.get("ignore", IGNORE_LABEL)


def _images(entry: CustomEntry) -> str:
    """The entry's images as the name of a data set."""
    return f"{PREFIX}{entry.values['images']}"
