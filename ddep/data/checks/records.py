"""Check one image and its labels, and count what they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from detectron2.data.catalog import Metadata
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

from ddep.data.checks.problems import Problem
from ddep.data.image_reader import read_image, read_labels, read_panoptic
from ddep.data.mappers.base import shorten
from ddep.data.mappers.instance import check_mask_size, segmentation_to_mask
from ddep.data.record import Record
from ddep.errors import UserError, one_line

# Boxes may extend this far beyond their image, in pixels: annotation tools round.
_BOX_TOLERANCE = 1


@dataclass(frozen=True)
class LabelSpace:
    """The range of labels that a data set may have.

    Attributes:
        num_classes: of semantic labels, segments and whole images; None if unknown.
        num_things: of instance annotations; None if unknown.
        ignore_label: label of pixels that do not count.
        boxes_only: whether annotations have no masks, and boxes of whole objects, which may reach
            beyond the image.
    """

    num_classes: int | None
    num_things: int | None
    ignore_label: int
    boxes_only: bool = False

    @classmethod
    def of(cls, metadata: Metadata) -> LabelSpace:
        """The label space of a registered data set."""
        stuff, things, whole = (
            metadata.get(key, ()) for key in ("stuff_classes", "thing_classes", "classes")
        )
        return cls(
            num_classes=max(len(stuff), len(things), len(whole)) or None,
            num_things=len(things) or None,
            ignore_label=metadata.get("ignore_label", 255),
            boxes_only=metadata.get("boxes_only", False),
        )


@dataclass
class ImageReport:
    """What :func:`check_record` found.

    Attributes:
        problems: in the order in which they were found.
        size: height and width of the image; None if it cannot be read.
        histogram: (3, 256) int64, how many pixels have each value of red, green and blue.
        class_pixels: number of pixels of each class.
        class_objects: number of segments or instances of each class, without crowds.
        classes: of the image as a whole.
        crowds: number of crowds.
    """

    problems: list[Problem] = field(default_factory=list)
    size: tuple[int, int] | None = None
    histogram: np.ndarray | None = None
    class_pixels: Counter[int] = field(default_factory=Counter)
    class_objects: Counter[int] = field(default_factory=Counter)
    classes: set[int] = field(default_factory=set)
    crowds: int = 0

    def add_problem(self, kind: str, file: str, message: str) -> None:
        self.problems.append(Problem(kind, file, message))

    def count(self, entry: Record, pixels: int) -> None:
        """Count a segment or an annotation and its pixels."""
        if entry.get("iscrowd", 0):
            self.crowds += 1
        else:
            self.class_objects[entry["category_id"]] += 1
            if pixels:
                self.class_pixels[entry["category_id"]] += pixels


def check_record(labels: LabelSpace, record: Record) -> ImageReport:
    """Check an image and all its labels.

    Args:
        labels: the labels that may occur.
        record: one image in detectron2's standard data set format.
    """
    report = ImageReport()
    try:
        size = _check_image(report, record)
        if "sem_seg_file_name" in record:
            _check_semantic(report, record, size, labels)
        if "pan_seg_file_name" in record:
            _check_panoptic(report, record, size, labels.num_classes)
        if "classes" in record:
            _check_classes(report, record, labels.num_classes)
        if "annotations" in record:
            _check_instances(report, record, size, labels)
    except Exception as error:  # one bad record must not stop the check of the others
        path = str(record.get("file_name"))
        message = (
            f"what the data set says about {path} cannot be used: {' '.join(repr(error).split())}"
        )
        report.add_problem("annotations", path, message)
    return report


def _check_classes(report: ImageReport, record: Record, num_classes: int | None) -> None:
    path = record["file_name"]
    for number in record["classes"]:
        if _check_class(report, path, f"image {path}", number, num_classes):
            report.classes.add(number)


# Height and width; None if unknown.
_Size = tuple[int, int] | None


def _check_image(report: ImageReport, record: Record) -> _Size:
    """Check the image; return the size that its labels must have."""
    path = record["file_name"]
    stated = (record["height"], record["width"]) if {"height", "width"} <= record.keys() else None
    pixels = _read(report, read_image, path)
    if pixels is None:
        return stated
    report.size = pixels.shape[:2]
    if stated not in (None, report.size):
        message = f"image {path} is {_show(report.size)}, but its annotation says {_show(stated)}"
        report.add_problem("size", path, message)
    report.histogram = np.stack(
        [np.bincount(pixels[..., channel].ravel(), minlength=256) for channel in range(3)]
    )
    return report.size


def _check_semantic(report: ImageReport, record: Record, size: _Size, labels: LabelSpace) -> None:
    path = record["sem_seg_file_name"]
    counts = _read_counts(report, read_labels, path, size)
    counts.pop(labels.ignore_label, None)
    wrong = [i for i in counts if not _in_range(i, labels.num_classes)]
    if wrong:
        pixels = sum(counts.pop(i) for i in wrong)
        message = (
            f"label image {path} has {pixels} pixels of the classes {shorten(np.array(wrong))}; "
            f"expected {_range(labels.num_classes)}, or {labels.ignore_label} to ignore"
        )
        report.add_problem("class", path, message)
    report.class_pixels.update(counts)


def _check_panoptic(
    report: ImageReport, record: Record, size: _Size, num_classes: int | None
) -> None:
    path = record["pan_seg_file_name"]
    counts = _read_counts(report, read_panoptic, path, size)
    if not counts:
        return
    counts.pop(0, None)
    # The pixels of classes are counted in the semantic labels, if there are any.
    counts_pixels = "sem_seg_file_name" not in record
    listed = set()
    for segment in record["segments_info"]:
        number = segment["id"]
        what = f"segment {number} of {path}"
        if number in listed:
            report.add_problem("duplicate", path, f"{what} is listed twice in the JSON file")
            continue
        listed.add(number)
        in_range = _check_class(report, path, what, segment["category_id"], num_classes)
        if number not in counts:
            message = f"{what} has no pixels, but the JSON file lists it"
            report.add_problem("absent_segment", path, message)
            continue
        if segment.get("area", counts[number]) != counts[number]:
            message = f"{what} has {counts[number]} pixels; the JSON file says {segment['area']}"
            report.add_problem("area", path, message)
        if "bbox" in segment:
            _check_box(report, path, what, segment["bbox"], BoxMode.XYWH_ABS, size)
        report.count(segment, counts[number] if in_range and counts_pixels else 0)
    unlisted = [number for number in counts if number not in listed]
    if unlisted:
        message = f"{path} has the segments {shorten(np.array(unlisted))}, not in the JSON file"
        report.add_problem("unlisted_segment", path, message)


def _check_instances(report: ImageReport, record: Record, size: _Size, labels: LabelSpace) -> None:
    path = record["file_name"]
    tracks = Counter(a["id"] for a in record["annotations"] if "id" in a)
    for number, times in tracks.items():
        if times > 1:
            report.add_problem("duplicate", path, f"track {number} is {times} times in {path}")
    for position, annotation in enumerate(record["annotations"], start=1):
        what = f"annotation {position} of {path}"
        in_range = _check_class(report, path, what, annotation["category_id"], labels.num_things)
        if "bbox" in annotation:
            box, mode = annotation["bbox"], annotation["bbox_mode"]
            _check_box(report, path, what, box, mode, None if labels.boxes_only else size)
        area = 0
        if not labels.boxes_only:
            area = _check_mask(report, path, what, annotation.get("segmentation"), size)
        report.count(annotation, area if in_range else 0)


def _check_mask(report: ImageReport, path: str, what: str, segmentation: Any, size: _Size) -> int:
    """Check a mask; return its number of pixels, 0 if it is unusable."""
    if size is None:
        return 0
    try:
        check_mask_size(path, segmentation, size)
    except UserError as error:
        report.add_problem("size", path, str(error))
        return 0
    try:
        inside = np.ones(size, dtype=bool)
        area = int(segmentation_to_mask(segmentation, T.TransformList([]), inside).sum())
    except (KeyError, TypeError, ValueError) as error:
        message = f"{what} has no mask that can be used: {one_line(error)}"
        report.add_problem("annotations", path, message)
        return 0
    if not area:
        report.add_problem("empty_mask", path, f"{what} has a mask without a pixel")
    return area


def _check_class(
    report: ImageReport, path: str, what: str, category: int, number: int | None
) -> bool:
    if _in_range(category, number):
        return True
    message = f"{what} has class {category}; expected {_range(number)}"
    report.add_problem("class", path, message)
    return False


def _check_box(
    report: ImageReport, path: str, what: str, box: Any, mode: BoxMode, size: _Size
) -> None:
    try:
        x0, y0, x1, y1 = BoxMode.convert([float(v) for v in box], mode, BoxMode.XYXY_ABS)
    except (AssertionError, TypeError, ValueError):
        report.add_problem("box", path, f"{what} has the box {box}; expected four numbers")
        return
    if not (x1 > x0 and y1 > y0):
        report.add_problem("box", path, f"{what} has a box without area, {list(box)}")
    elif size and max(-x0, -y0, x1 - size[1], y1 - size[0]) > _BOX_TOLERANCE:
        message = f"{what} has the box {list(box)}, outside its image of {_show(size)}"
        report.add_problem("box", path, message)


def _read(report: ImageReport, reader: Callable[[str], np.ndarray], path: str) -> np.ndarray | None:
    if not PathManager.isfile(path):
        report.add_problem("missing", path, f"{path} does not exist")
        return None
    try:
        return reader(path)
    except UserError as error:
        report.add_problem("unreadable", path, str(error))
        return None


def _read_counts(
    report: ImageReport, reader: Callable[[str], np.ndarray], path: str, size: _Size
) -> dict[int, int]:
    """Map each id of a label image to its number of pixels; empty if the image is unusable."""
    ids = _read(report, reader, path)
    if ids is None:
        return {}
    if size not in (None, ids.shape):
        message = f"label image {path} is {_show(ids.shape)}, but its image is {_show(size)}"
        report.add_problem("size", path, message)
        return {}
    if ids.min() >= 0 and ids.max() < 2**16:  # several times faster than sorting
        counts = np.bincount(ids.ravel())
        values = np.flatnonzero(counts)
        counts = counts[values]
    else:
        values, counts = np.unique(ids, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _in_range(category: int, number: int | None) -> bool:
    return category >= 0 and (number is None or category < number)


def _range(number: int | None) -> str:
    return "a number from 0 on" if number is None else f"0 to {number - 1}"


def _show(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
