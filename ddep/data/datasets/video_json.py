"""Read JSON files in YouTube-VIS's format, whose annotations are tracks through whole videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask

from ddep.data.datasets.panoptic import Category
from ddep.data.json_file import read_json
from ddep.data.record import Record
from ddep.errors import UserError

FORMAT = "YouTube-VIS's format"
# What an annotation gives for each frame; boxes and areas follow from masks.
PER_FRAME = ("segmentations", "bboxes", "areas")
# The keys that an annotation must have, and those of a video.
TRACK_KEYS = ("id", "video_id", "category_id", "segmentations")
VIDEO_KEYS = ("id", "file_names", "height", "width")


def read_videos(json_file: Path, categories: Sequence[Category], *, labelled: bool) -> list[Record]:
    """Read the videos of a JSON file and their annotations.

    Args:
        json_file: the file.
        categories: the classes that it should have, by ascending id.
        labelled: whether it must have annotations. Otherwise those that it has are left out.

    Returns:
        As :func:`ddep.data.datasets.video.load_videos`, but frames have the names in the file.

    Raises:
        UserError: a file that is missing, not in this format, contradictory or about other classes.
    """
    lists = ("videos", *(("annotations", "categories") if labelled else ()))
    content = read_json(json_file, lists, form=FORMAT)
    if not content["videos"]:
        raise UserError(f"{json_file}: lists no videos; get or make it again")
    records: dict[Any, Record] = {}
    for video in content["videos"]:
        record = _video(json_file, video)
        if record["video_id"] in records:
            raise UserError(
                f"{json_file}: two videos have the id {record['video_id']}; give each its own"
            )
        records[record["video_id"]] = record
    if labelled:
        _check_categories(json_file, content["categories"], categories)
        contiguous = {category["id"]: i for i, category in enumerate(categories)}
        for record in records.values():
            record["annotations"] = [[] for _ in record["file_names"]]
        for annotation in content["annotations"]:
            _add_track(json_file, annotation, records, contiguous)
    return list(records.values())


def _video(json_file: Path, video: Any) -> Record:
    _check_keys(f"{json_file}: a video", video, VIDEO_KEYS)
    _check_id(f"{json_file}: a video", video["id"])
    where = f"{json_file}: video {video['id']}"
    names = video["file_names"]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise UserError(
            f"{where} has file_names {names!r:.60}; expected a list of at least one name"
        )
    length = video.get("length", len(names))
    if length != len(names):
        raise UserError(
            f"{where} has length {length}, but {len(names)} file_names; they must be as many"
        )
    for key in ("height", "width"):
        if type(video[key]) is not int or video[key] < 1:
            raise UserError(f"{where} has {key} {video[key]!r}; expected a number of pixels")
    return {
        "file_names": names,
        "height": video["height"],
        "width": video["width"],
        "length": length,
        "video_id": video["id"],
    }


def _add_track(
    json_file: Path, track: Any, records: dict[Any, Record], contiguous: dict[int, int]
) -> None:
    """Add an annotation's masks to the frames of its video."""
    _check_keys(f"{json_file}: an annotation", track, TRACK_KEYS)
    _check_id(f"{json_file}: an annotation", track["id"])
    where = f"{json_file}: annotation {track['id']}"
    record = records.get(track["video_id"])
    if record is None:
        raise UserError(f"{where} is of video {track['video_id']}, which is not listed")
    if track["category_id"] not in contiguous:
        raise UserError(
            f"{where} has category {track['category_id']}, which is not listed; expected one of "
            f"{', '.join(map(str, contiguous))}"
        )
    size = [record["height"], record["width"]]
    none = [None] * record["length"]
    values = {key: track.get(key) or none for key in PER_FRAME}
    for key, given in values.items():
        if not isinstance(given, list) or len(given) != record["length"]:
            found = len(given) if isinstance(given, list) else type(given).__name__
            raise UserError(
                f"{where} has {found} {key}, but video {record['video_id']} has "
                f"{record['length']} frames; expected one of each frame, or null"
            )
    for name, objects, mask, box, area in zip(
        record["file_names"], record["annotations"], *values.values(), strict=True
    ):
        if not mask:
            continue
        if any(other["id"] == track["id"] for other in objects):
            raise UserError(
                f"{where} is twice in frame {name}; expected once: give every track an id of "
                "its own"
            )
        if isinstance(mask, dict) and list(mask.get("size", ())) != size:
            raise UserError(
                f"{where} has a mask of (height, width) {mask.get('size')} in frame {name}; "
                f"expected {size}, the size of its video"
            )
        if box is None or area is None:
            found = _box_and_area(where, mask, size)
            box, area = box or found[0], found[1] if area is None else area
        objects.append(
            {
                "id": track["id"],
                "category_id": contiguous[track["category_id"]],
                "iscrowd": track.get("iscrowd", 0),
                "bbox": box,
                "bbox_mode": BoxMode.XYWH_ABS,
                "segmentation": mask,
                "area": area,
            }
        )


def _box_and_area(where: str, mask: Any, size: list[int]) -> tuple[list[float], float]:
    """The box [x, y, width, height] and the area of a mask in pixels."""
    try:
        encoded = mask
        if isinstance(mask, list) or isinstance(mask["counts"], list):
            encoded = coco_mask.frPyObjects(mask, *size)
        encoded = coco_mask.merge(encoded) if isinstance(encoded, list) else encoded
        return coco_mask.toBbox(encoded).tolist(), float(coco_mask.area(encoded))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where} has a segmentation {mask!r:.60}; expected polygons, COCO run lengths or null"
        ) from error


def _check_keys(what: str, entry: Any, keys: tuple[str, ...]) -> None:
    for key in keys:
        if not isinstance(entry, dict) or key not in entry:
            raise UserError(
                f"{what} has no {key}: {entry!r:.60}; expected {', '.join(keys)}, as in {FORMAT}"
            )


def _check_id(what: str, number: Any) -> None:
    if type(number) is not int or number < 0:
        raise UserError(f"{what} has the id {number!r}; expected a whole number of at least 0")


def _check_categories(json_file: Path, found: Any, expected: Sequence[Category]) -> None:
    for category in found:
        _check_keys(f"{json_file}: a category", category, ("id", "name"))
    theirs = {category["id"]: category["name"] for category in found}
    ours = {category["id"]: category["name"] for category in expected}
    for number in sorted(theirs.keys() | ours.keys()):
        if theirs.get(number) != ours.get(number):
            raise UserError(
                f"{json_file}: category {number} is {theirs.get(number)}; expected "
                f"{ours.get(number)}; this is the file of another data set"
            )
