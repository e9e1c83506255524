"""The type of a data set's records, each of which describes one image or video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# detectron2's standard dict: ``file_name`` and, where known, ``image_id``, ``height``, ``width``
# and labels (``sem_seg_file_name``; ``pan_seg_file_name`` with ``segments_info``; ``annotations``;
# ``classes``, the indices of the whole image's classes).
#
# That of a video has the paths of its frames (``file_names``), its ``length`` and ``video_id``;
# ``file_name`` is the first frame's, and ``annotations`` are one list for each frame.
Record = dict[str, Any]


def annotated_objects(record: Record) -> list[dict[str, Any]]:
    """The annotations of an image; of a video, the first one of each track."""
    if "file_names" not in record:
        return record["annotations"]
    first: dict[int, dict[str, Any]] = {}
    for frame in record["annotations"]:
        for annotation in frame:
            first.setdefault(annotation["id"], annotation)
    return list(first.values())


def frame_record(record: Record, frame: int) -> Record:
    """A frame of a video, as the record of an image."""
    image = {
        "file_name": record["file_names"][frame],
        "height": record["height"],
        "width": record["width"],
    }
    if "annotations" in record:
        image["annotations"] = record["annotations"][frame]
    return image


def as_images(records: Sequence[Record]) -> Sequence[Record]:
    """The images of a data set: those of videos are all of their frames."""
    if not len(records) or "file_names" not in records[0]:
        return records
    return [frame_record(record, i) for record in records for i in range(record["length"])]
