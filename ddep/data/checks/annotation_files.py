"""Check a data set's annotation files and folders without opening an image.

Loaders refuse a whole file for one mistake, or silently leave out what they cannot use.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from detectron2.data.catalog import Metadata

from ddep.data.checks.json_entries import Found, check_category, key_of, lacking
from ddep.data.checks.problems import Problem
from ddep.data.checks.video_annotations import check_videos
from ddep.data.datasets.instances import ANNOTATION_KEYS
from ddep.data.datasets.paired_folders import PairedFolders
from ddep.data.datasets.video_json import FORMAT as VIDEO_FORMAT
from ddep.data.json_file import read_json
from ddep.data.record import Record


def check_annotation_files(metadata: Metadata) -> list[Problem]:
    """Check a data set's JSON file, if it has one: ``panoptic_json``, else ``json_file``.

    Args:
        metadata: the data set's.

    Raises:
        UserError: it cannot be read as a whole.
    """
    path, check = metadata.get("panoptic_json"), _check_panoptic
    if not path:
        path, check = metadata.get("json_file"), _check_instances
    if not path:
        return []
    is_video = metadata.get("evaluator_type") == "ytvis"
    if is_video and metadata.get("labels_are_secret", False):
        content = read_json(path, ("videos",), VIDEO_FORMAT) | {"annotations": [], "categories": []}
    elif is_video:
        content = read_json(path, ("videos", "annotations", "categories"), VIDEO_FORMAT)
    else:
        content = read_json(path, ("images", "annotations", "categories"))
    known = _known_categories(metadata) or {key_of(c, "id") for c in content["categories"]}
    if is_video:
        found = check_videos(content, known)
    else:
        found = [*_check_images(content["images"]), *check(content, known)]
    return [Problem(kind, path, f"{path}: {message}") for kind, message in found]


def check_folders(metadata: Metadata, records: Sequence[Record]) -> list[Problem]:
    """Find unused files in a data set's folders of images and labels.

    Args:
        metadata: the data set's.
        records: of the data set; the files that they name are used.
    """
    if not _is_two_folders(metadata):
        return []
    found = PairedFolders.read(metadata.image_root, metadata.sem_seg_root)
    keys = ("file_name", "sem_seg_file_name")
    used = {os.path.normpath(record[key]) for record in records for key in keys if key in record}
    used |= {path for pair in found.repeated for path in pair}
    images, labels = (set(paths.values()) - used for paths in (found.images, found.labels))
    return [*_repeated(found), *_unpaired(images, labels)]


def pair_folders(metadata: Metadata) -> tuple[list[Record], list[Problem]]:
    """Pair images and labels by name, for a data set of two folders that cannot be loaded.

    Args:
        metadata: the data set's.

    Returns:
        The records of the pairs, and a problem for each file without a partner; both are empty if
        the data set does not consist of two folders.
    """
    if not _is_two_folders(metadata):
        return [], []
    found = PairedFolders.read(metadata.image_root, metadata.sem_seg_root)
    unpaired = _unpaired(found.images_without_label(), found.labels_without_image())
    return found.pairs(), [*_repeated(found), *unpaired]


def _is_two_folders(metadata: Metadata) -> bool:
    folders = (metadata.get("image_root"), metadata.get("sem_seg_root"))
    listed = metadata.get("panoptic_json") or metadata.get("names_file")
    return not listed and all(f and os.path.isdir(f) for f in folders)


def _repeated(found: PairedFolders) -> list[Problem]:
    return [
        Problem("duplicate", second, f"{first} and {second} differ only in their endings")
        for first, second in found.repeated
    ]


def _unpaired(images: Iterable[str], labels: Iterable[str]) -> list[Problem]:
    return [
        Problem("unpaired", path, f"{what} {path} is not used; there is no {other} for it")
        for what, other, paths in (("image", "label", images), ("label", "image", labels))
        for path in sorted(paths)
    ]


def _check_images(images: Iterable[Any]) -> Iterator[Found]:
    for image in images:
        absent = [k for k in ("id", "file_name", "height", "width") if key_of(image, k) is None]
        if absent:
            yield "annotations", f"image {str(image)[:60]} lacks {', '.join(absent)}"
    for key in ("id", "file_name"):
        for value, times in Counter(key_of(image, key) for image in images).items():
            if times > 1 and value is not None:
                yield "duplicate", f"{times} images have the {key} {value!r}"


def _check_panoptic(content: dict[str, Any], known: Collection[int | str]) -> Iterator[Found]:
    names = _names(content)
    annotated = Counter(key_of(annotation, "image_id") for annotation in content["annotations"])
    for image_id, times in annotated.items():
        if times > 1:
            yield "duplicate", f"image {image_id!r} has {times} annotations"
    for image_id in names.keys() - annotated.keys():
        yield "unpaired", f"image {image_id!r} ({names[image_id]}) has no annotation"
    for annotation in content["annotations"]:
        image_id = key_of(annotation, "image_id")
        if image_id not in names:
            yield "annotations", f"image {image_id!r} has an annotation, but is not listed"
        image = f"image {image_id!r} ({names.get(image_id)})"
        segments = annotation.get("segments_info") if isinstance(annotation, dict) else None
        if not isinstance(segments, list) or key_of(annotation, "file_name") is None:
            yield "annotations", f"the annotation of {image} lacks file_name or segments_info"
            continue
        for segment in segments:
            number = key_of(segment, "id")
            if not isinstance(number, int) or number <= 0:
                yield "annotations", f"{image} has a segment of id {number!r}; expected 1, 2, ..."
            yield from check_category(f"{image}: segment {number}", segment, known)


def _check_instances(content: dict[str, Any], known: Collection[int | str]) -> Iterator[Found]:
    names = _names(content)
    numbers = Counter(key_of(annotation, "id") for annotation in content["annotations"])
    for number, times in numbers.items():
        if times > 1:
            yield "duplicate", f"{times} annotations have the id {number!r}"
    for annotation in content["annotations"]:
        image_id = key_of(annotation, "image_id")
        if image_id not in names:
            yield "annotations", f"image {image_id!r} has an annotation, but is not listed"
        what = f"image {image_id!r} ({names.get(image_id)}): annotation {key_of(annotation, 'id')}"
        absent = lacking(annotation, ANNOTATION_KEYS)
        if absent:
            yield "annotations", f"{what} lacks {', '.join(absent)}"
        yield from check_category(what, annotation, known)
        shapes = annotation.get("segmentation") if isinstance(annotation, dict) else None
        if isinstance(shapes, list) and not any(_is_polygon(shape) for shape in shapes):
            yield "empty_mask", f"{what} has no polygon of three points or more"


def _is_polygon(shape: Any) -> bool:
    return isinstance(shape, list) and len(shape) >= 6 and len(shape) % 2 == 0


def _known_categories(metadata: Metadata) -> set[int]:
    maps = ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id")
    return {category for name in maps for category in metadata.get(name, {})}


def _names(content: dict[str, Any]) -> dict[int | str | None, int | str | None]:
    """Map image ids to file names."""
    return {key_of(image, "id"): key_of(image, "file_name") for image in content["images"]}
