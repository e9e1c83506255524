"""Video data sets in YouTube-VIS's format: folders of frames and one JSON file per split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddep.data.datasets.catalog import register
from ddep.data.datasets.label_kinds import VIDEO
from ddep.data.datasets.panoptic import Category
from ddep.data.datasets.video_json import read_videos
from ddep.data.record import Record
from ddep.errors import UserError


def register_videos(
    name: str,
    image_root: Path,
    json_file: Path,
    categories: Sequence[Category],
    *,
    labelled_for: Sequence[str] = VIDEO,
    labels_are_secret: bool = False,
    **metadata: Any,
) -> None:
    """Register a video data set, with the metadata that its evaluator reads.

    Args:
        name: what configs call it.
        image_root: the folder that the frames' names are relative to.
        json_file: opened only when the records are needed.
        categories: its classes by ascending id; their order gives the contiguous ids.
        labelled_for: what it has labels for.
        labels_are_secret: whether its JSON file only lists the videos, and a server has the labels.
        metadata: further attributes.
    """
    register(
        name,
        lambda: load_videos(image_root, json_file, categories, labelled=not labels_are_secret),
        image_root=str(image_root),
        json_file=str(json_file),
        evaluator_type="ytvis",
        labelled_for=tuple(labelled_for),
        labels_are_secret=labels_are_secret,
        required_files=("image_root", "json_file"),
        thing_classes=[category["name"] for category in categories],
        thing_colors=[list(category["color"]) for category in categories],
        thing_dataset_id_to_contiguous_id={c["id"]: i for i, c in enumerate(categories)},
        **metadata,
    )


def load_videos(
    image_root: Path, json_file: Path, categories: Sequence[Category], *, labelled: bool
) -> list[Record]:
    """Read a JSON file in YouTube-VIS's format.

    Args:
        image_root: the folder that the frames' names are relative to.
        json_file: the file.
        categories: the classes that it should have, by ascending id.
        labelled: whether it must have annotations. Otherwise those that it has are left out.

    Returns:
        For each video: ``file_name`` (of the first frame, which stands for the video in lists and
        logs), ``file_names`` (of all T frames, in order), ``height``, ``width`` (pixels),
        ``length`` (T), ``video_id`` and, if labelled, ``annotations``: for each frame, a list of
        the objects in it. Each of those is a dict as of detectron2's images, with the track as
        ``id``, and ``area``.

    Raises:
        UserError: a file that is missing, not in this format, contradictory or about other classes;
            no frame exists.
    """
    videos = read_videos(json_file, categories, labelled=labelled)
    records = [
        {
            **video,
            "file_name": str(image_root / video["file_names"][0]),
            "file_names": [str(image_root / name) for name in video["file_names"]],
        }
        for video in videos
    ]
    if not any(Path(record["file_name"]).is_file() for record in records):
        raise UserError(
            f"{records[0]['file_name']} does not exist, nor does the first frame of another video "
            f"that {json_file} lists; see datasets/README.md"
        )
    return records
