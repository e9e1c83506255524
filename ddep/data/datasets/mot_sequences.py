"""Sequences of MOTChallenge as data sets: a folder for each video, with frames and labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ddep.data.datasets.catalog import register
from ddep.data.datasets.mot_files import MotSequence, read_sequence
from ddep.data.datasets.panoptic import Category
from ddep.data.record import Record

# Which halves of each training video a name takes; TrackFormer has the same.
PARTS = {"train": (0, 2), "train_half": (0, 1), "val_half": (1, 2)}
WHOLE = PARTS["train"]
PEDESTRIAN_COLOUR = [220, 20, 60]
Annotations = list[list[dict[str, Any]]]


def video_records(
    folders: Sequence[Path],
    read_annotations: Callable[[MotSequence], Annotations] | None,
    part: tuple[int, int],
) -> list[Record]:
    """A record for each sequence.

    Args:
        folders: of the sequences.
        read_annotations: reads the annotations of all frames; None leaves them out.
        part: one of PARTS: from which half on, and up to which.

    Returns:
        As :func:`ddep.data.datasets.video.load_videos`, with ``video_name``.

    Raises:
        UserError: a file is missing or broken.
    """
    records = []
    for number, folder in enumerate(folders, 1):
        sequence = read_sequence(folder)
        first, last = (len(sequence.frames) * end // 2 for end in part)
        record = {
            "file_name": sequence.frames[first],
            "file_names": sequence.frames[first:last],
            "height": sequence.height,
            "width": sequence.width,
            "length": last - first,
            "video_id": number,
            "video_name": folder.name,
        }
        if read_annotations is not None:
            record["annotations"] = read_annotations(sequence)[first:last]
        records.append(record)
    return records


def load_images(load_videos: Callable[[], Sequence[Record]]) -> list[Record]:
    """The frames of videos as images: ``file_name``, ``image_id``, ``height``, ``width`` and
    ``annotations``."""
    return [
        {
            "file_name": path,
            "image_id": f"{video['video_name']}/{os.path.basename(path)}",
            "height": video["height"],
            "width": video["width"],
            "annotations": annotations,
        }
        for video in load_videos()
        for path, annotations in zip(video["file_names"], video["annotations"], strict=True)
    ]


def register_sequences(
    name: str,
    load: Callable[[], list[Record]],
    folder: Path,
    category: Category,
    labelled_for: Sequence[str],
    **metadata: Any,
) -> None:
    """Register videos of one class.

    Args:
        name: what configs call them.
        load: returns their records.
        folder: that must exist.
        category: the class.
        labelled_for: what they have labels for.
        metadata: further attributes.
    """
    register(
        name,
        load,
        image_root=str(folder),
        labelled_for=tuple(labelled_for),
        required_files=("image_root",),
        thing_classes=[category["name"]],
        thing_colors=[list(category["color"])],
        thing_dataset_id_to_contiguous_id={category["id"]: 0},
        **metadata,
    )
