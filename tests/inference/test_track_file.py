from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.data import Metadata
from pycocotools import mask as coco_mask

from ddep.data.datasets.video_json import read_videos
from ddep.errors import UserError
from ddep.files import remove_leftovers
from ddep.inference.track_file import new_track_file
from ddep.inference.tracking import TrackedFrame
from ddep.modeling.tracking import FrameTracks
from tests.checkpoint.full_disk import full_disk

CATEGORIES = [{"id": 3, "name": "disc", "isthing": 1}, {"id": 8, "name": "square", "isthing": 1}]
METADATA = Metadata(
    name="tracks of a test",
    thing_classes=["disc", "square"],
    thing_dataset_id_to_contiguous_id={3: 0, 8: 1},
)
SIZE = (6, 9)


def frame(number: int, tracks: dict[int, list[float]]) -> TrackedFrame:
    """Random masks of tracks with these probabilities."""
    masks = np.random.default_rng(number).random((len(tracks), *SIZE)) < 0.5
    found = FrameTracks(
        number,
        list(tracks),
        torch.tensor(list(tracks.values())),
        torch.from_numpy(masks),
    )
    return TrackedFrame(np.zeros((*SIZE, 3), dtype=np.uint8), found, METADATA)


FRAMES = [
    frame(0, {1: [0.6, 0.3]}),
    frame(1, {}),
    frame(2, {1: [0.3, 0.5], 2: [0.9, 0.1]}),
    frame(3, {2: [0.8, 0.1]}),
]


def write(path: Path, frames: list[TrackedFrame], **video: Any) -> dict[str, Any]:
    with new_track_file(path, METADATA, lambda length: video) as add:
        for one in frames:
            add(one)
    return json.loads(path.read_text())


def test_the_file_has_each_track_in_each_frame(tmp_path: Path) -> None:
    path = tmp_path / "tracks" / "a.json"
    content = write(path, FRAMES, file_name="a.mp4", frame_rate=12.5)
    size = {"height": 6, "width": 9, "length": 4}
    assert content["videos"] == [{"id": 1, "file_name": "a.mp4", "frame_rate": 12.5, **size}]
    assert content["categories"] == [{"id": 3, "name": "disc"}, {"id": 8, "name": "square"}]
    one, two = content["annotations"]
    # The class and score of a track are those that are known in the end.
    assert (one["id"], one["category_id"], one["score"]) == (1, 8, pytest.approx(0.5))
    assert (two["id"], two["category_id"], two["score"]) == (2, 3, pytest.approx(0.8))
    for track in (one, two):
        assert track["video_id"] == 1 and track["iscrowd"] == 0
        assert {key: track[key] for key in size} == size
        for found in FRAMES:
            entries = [track[key][found.number] for key in ("segmentations", "bboxes", "areas")]
            if track["id"] not in found.track_ids:
                assert entries == [None] * 3
                continue
            mask = found.masks[found.track_ids.index(track["id"])]
            assert np.array_equal(coco_mask.decode(entries[0]).astype(bool), mask)
            rows, columns = np.nonzero(mask)
            left, top = columns.min(), rows.min()
            assert entries[1] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
            assert entries[2] == mask.sum()
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_a_folders_tracks_are_a_data_set_of_videos(tmp_path: Path) -> None:
    """Such as pseudo-labels for training."""
    path = tmp_path / "a.json"
    names = [f"{number}.png" for number in range(4)]
    write(path, FRAMES, file_names=names)
    [record] = read_videos(path, CATEGORIES, labelled=True)
    assert record["file_names"] == names and record["video_id"] == 1
    assert [[one["id"] for one in of_frame] for of_frame in record["annotations"]] == [
        [1],
        [],
        [1, 2],
        [2],
    ]
    assert [one["category_id"] for one in record["annotations"][2]] == [1, 0]


@pytest.mark.parametrize("frames", [FRAMES[1:2], []])
def test_nothing_found_is_a_file_without_tracks(tmp_path: Path, frames: list) -> None:
    content = write(tmp_path / "a.json", frames)
    assert content["annotations"] == [] and content["videos"][0]["length"] == 2 * len(frames)


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(RuntimeError), new_track_file(path, METADATA, lambda length: {}) as add:
        add(FRAMES[0])
        assert path.read_text() == "before"
        remove_leftovers(str(tmp_path))  # these are in use
        assert len(list(tmp_path.iterdir())) == 3
        raise RuntimeError
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    many = [frame(number, {n: [0.5, 0.2] for n in range(40)}) for number in range(60)]
    with full_disk(room=100_000), pytest.raises(UserError, match=r"a\.json cannot be written: "):
        write(path, many)
    assert list(tmp_path.iterdir()) == []


def test_a_class_that_the_data_set_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="predicts class 2, which the data set"):
        write(tmp_path / "a.json", [frame(0, {1: [0.1, 0.2, 0.6]})])
