from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as coco_mask

from ddep.data.datasets import labelled_for, moving_scenes
from ddep.data.datasets.moving_scenes import MIN_VISIBLE_AREA, Clip, draw_clip
from ddep.data.datasets.moving_shapes import generate_moving_shapes
from ddep.errors import UserError

SMALL = {"train": 2, "val": 1, "frames": 3, "size": 32}
SIDE = 64


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [draw_clip(np.random.default_rng(index), SIDE, 12) for index in range(16)]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.*")
    }


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    generate_moving_shapes(tmp_path / "a", seed=1, **SMALL)
    generate_moving_shapes(tmp_path / "b", seed=1, **SMALL)
    generate_moving_shapes(tmp_path / "c", seed=2, **SMALL)
    first, again, other = (hashes(tmp_path / name) for name in "abc")
    assert len(first) == 3 * 3 + 4
    assert again == first
    assert other.keys() == first.keys()
    assert len({*first.values(), *other.values()}) == 2 * len(first)


def test_more_videos_keep_the_first_and_fewer_remove_the_rest(tmp_path: Path) -> None:
    generate_moving_shapes(tmp_path, **SMALL)
    first = hashes(tmp_path)
    generate_moving_shapes(tmp_path, **{**SMALL, "train": 4})
    more = hashes(tmp_path)
    assert len(more) == len(first) + 2 * 3
    assert {name for name in first if more[name] != first[name]} == {
        "train.json",
        "train_objects.json",
    }
    generate_moving_shapes(tmp_path, **{**SMALL, "train": 4, "frames": 5})
    (tmp_path / "train" / "notes.txt").write_text("mine")
    generate_moving_shapes(tmp_path, **SMALL)
    (tmp_path / "train" / "notes.txt").unlink()
    assert hashes(tmp_path) == first


def test_files_agree(root: Path) -> None:
    counts = generate_moving_shapes(root / "moving_shapes", train=6, val=2, size=48)
    absent = 0
    for split, videos in (("train", 6), ("val", 2)):
        name = f"moving_shapes_{split}"
        records = DatasetCatalog.get(name)
        assert len(records) == videos == counts[split]["videos"]
        ids = set()
        for record in records:
            assert (record["length"], record["height"], record["width"]) == (12, 48, 48)
            assert record["file_name"] == record["file_names"][0]
            for path, objects in zip(record["file_names"], record["annotations"], strict=True):
                assert np.asarray(Image.open(path)).shape == (48, 48, 3)
                masks = [coco_mask.decode(o["segmentation"]) for o in objects]
                assert np.sum(masks, axis=0).max() == 1
                for mask, found in zip(masks, objects, strict=True):
                    y, x = np.nonzero(mask)
                    assert len(y) == found["area"] >= MIN_VISIBLE_AREA
                    box = [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
                    assert found["bbox"] == box
            seen = [{o["id"] for o in objects} for objects in record["annotations"]]
            ids |= set.union(*seen)
            absent += sum(len(set.union(*seen)) - len(now) for now in seen)
        assert len(ids) == counts[split]["tracks"]
        assert labelled_for(name) == ("video_segm", "tracking")
        metadata = MetadataCatalog.get(name)
        assert metadata.thing_classes == ["disc", "square", "triangle", "star"]
        assert metadata.evaluator_type == "ytvis"
        objects = DatasetCatalog.get(f"moving_shapes_objects_{split}")
        assert MetadataCatalog.get(f"moving_shapes_objects_{split}").thing_classes == ["object"]
        for record in (*records, *objects):
            for found in sum(record["annotations"], []):
                found["category_id"] = 0
        assert objects == records
    content = json.loads((root / "moving_shapes" / "train.json").read_text())
    nulls = sum(a["segmentations"].count(None) for a in content["annotations"])
    assert 0 < nulls < absent + 1


def test_things_that_look_alike_cross_in_every_video(clips: list[Clip]) -> None:
    for clip in clips:
        pairs = [
            (a, b)
            for a, first in clip.class_ids.items()
            for b, second in clip.class_ids.items()
            if a < b and first == second
        ]
        nearest = []
        for a, b in pairs:
            distances = []
            for tracks in clip.tracks:
                places = [np.argwhere(tracks == number) for number in (a, b)]
                if all(len(place) for place in places):
                    apart = places[0][:, None] - places[1][None]
                    distances.append(np.abs(apart).max(axis=-1).min())
            nearest.append(min(distances, default=SIDE))
        assert min(nearest) == 1


def test_things_leave_and_come_back(clips: list[Clip]) -> None:
    visible = [
        "".join("x" if (tracks == number).any() else "." for tracks in clip.tracks)
        for clip in clips
        for number in clip.class_ids
    ]
    assert sum("." in track for track in visible) > 0.1 * len(visible)
    assert sum("x" in track.lstrip(".").lstrip("x") for track in visible) >= 2


def test_masks_are_where_the_things_are_seen(clips: list[Clip]) -> None:
    """The ground is still: pixels differ from its usual colour where things are."""
    agreement = []
    shifts = [(0, 0), (0, 2), (2, 0), (0, -2), (-2, 0)]
    for clip in clips:
        images = clip.images.astype(float)
        changed = np.abs(images - np.median(images, axis=0)).max(axis=-1)
        rare = ((clip.tracks > 0).mean(axis=0) < 0.4)[None]
        for frame, now in enumerate(changed):
            for shift in shifts:
                mask = np.roll(clip.tracks[frame] > 0, shift, (0, 1)) & rare[0]
                agreement.append(now[mask].mean() - now[~mask & rare[0]].mean())
    means = np.nanmean(np.reshape(agreement, (-1, len(shifts))), axis=0)
    assert means[0] > 1.15 * means[1:].max()


def test_masks_show_the_thing_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first three things become red, green and blue, and there are no others."""
    draw = moving_scenes._draw_movers
    tints = np.eye(3)
    monkeypatch.setattr(
        moving_scenes,
        "_draw_movers",
        lambda *args: [replace(m, tint=t) for m, t in zip(draw(*args), tints, strict=False)],
    )
    correct = []
    for index in range(8):
        clip = draw_clip(np.random.default_rng(index), SIDE, 12)
        for image, tracks in zip(clip.images, clip.tracks, strict=True):
            for number in clip.class_ids:
                inside = cv2.erode((tracks == number).astype(np.uint8), np.ones((3, 3))) > 0
                correct += (image[inside].argmax(axis=1) == number - 1).tolist()
    assert np.mean(correct) > 0.99


def test_identities_move_smoothly(clips: list[Clip]) -> None:
    """A thing that is wholly visible has not moved far since the frame before."""
    steps = []
    for clip in clips:
        for number in clip.class_ids:
            masks = clip.tracks == number
            areas = masks.sum(axis=(1, 2))
            whole = areas > 0.9 * areas.max()
            centres = [np.argwhere(mask).mean(axis=0) if mask.any() else None for mask in masks]
            for frame in range(1, len(masks)):
                if whole[frame] and whole[frame - 1]:
                    steps.append(np.hypot(*(centres[frame] - centres[frame - 1])))
    assert max(steps) < 0.16 * SIDE
    assert np.mean(steps) > 0.03 * SIDE


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("size", 31, 32), ("train", 0, 1), ("val", -1, 1), ("frames", 0, 1), ("seed", -1, 0)],
)
def test_mistakes(tmp_path: Path, option: str, value: int, least: int) -> None:
    with pytest.raises(UserError, match=f"--{option} is {value}; expected at least {least}"):
        generate_moving_shapes(tmp_path / "shapes", **{option: value})
    assert not (tmp_path / "shapes").exists()
