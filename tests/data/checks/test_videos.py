"""What a check finds in videos, and what it counts."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from ddep.data.checks import DatasetReport
from ddep.inference import dataset_check
from ddep.inference.dataset_check import CONTACT_SHEET, check_dataset
from tests.data.checks.trees import cut
from tests.data.datasets.imitation_videos import AREA, COMPRESSED, HEIGHT, WIDTH, Videos


@pytest.fixture
def check(videos: Videos, config, tmp_path) -> Callable[[], DatasetReport]:
    def run() -> DatasetReport:
        videos.write()
        cfg = config("DATASETS.CUSTOM", videos.custom())
        return check_dataset("own_video", str(tmp_path / "out"), workers=1, cfg=cfg)

    return run


def test_frames_are_counted(check, tmp_path) -> None:
    report = check()
    assert report.fine
    assert (report.videos, report.images, report.crowds) == (2, 4, 1)
    assert report.to_json()["videos"] == 2
    assert dict(report.objects) == {1: 2}
    assert dict(report.pixels) == {1: 2 * AREA}
    assert str(report).startswith("own_video: 2 videos, 4 images\n")
    assert np.asarray(Image.open(tmp_path / "out" / CONTACT_SHEET)).ndim == 3


def change(**values) -> Callable[[Videos], object]:
    return lambda v: v.content["annotations"][0].update(values)


def change_video(**values) -> Callable[[Videos], object]:
    return lambda v: v.content["videos"][0].update(values)


EMPTY = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
NOT_LOADED = ("annotations", "own_video cannot be loaded, so no image was checked: ")
DAMAGES: dict[str, tuple[Callable[[Videos], object], list[tuple[str, str]]]] = {
    "a frame is missing": (
        lambda v: (v.images / "a/1.png").unlink(),
        [("missing", r"a/1\.png does not exist$")],
    ),
    "a frame is damaged": (
        lambda v: cut(v.images / "a/1.png"),
        [("unreadable", r"image .*a/1\.png cannot be read")],
    ),
    "a frame of another size": (
        lambda v: Image.new("RGB", (9, 6)).save(v.images / "a/1.png"),
        [("size", r"image .*a/1\.png is 9x6, but its annotation says 8x6")],
    ),
    "a frame listed twice": (
        change_video(file_names=["a/0.png", "a/0.png", "a/2.png"]),
        [("duplicate", r"train\.json: frame 'a/0\.png' is listed 2 times")],
    ),
    "two videos of an id": (
        change_video(id=2),
        [
            ("duplicate", "two videos have the id 2"),
            *[("annotations", "annotation [17] is of video 5, which is not listed")] * 2,
            ("annotations", "own_video cannot be loaded.*: two videos have the id 2"),
        ],
    ),
    "a video without frames": (
        change_video(file_names=[]),
        [
            ("annotations", r"train\.json: video 5 has no frames"),
            *[("annotations", "annotation [17] has .* but video 5 has 0 frames")] * 4,
            NOT_LOADED,
        ],
    ),
    "a length that is none": (
        change_video(length=4),
        [("annotations", r"train\.json: video 5 has length 4, but 3 frames"), NOT_LOADED],
    ),
    "a video without size": (
        lambda v: v.content["videos"][0].pop("width"),
        [("annotations", "video .* lacks width$"), NOT_LOADED],
    ),
    "a mask too few": (
        change(segmentations=[COMPRESSED]),
        [
            ("annotations", "annotation 1 has 1 segmentations, but video 5 has 3 frames"),
            NOT_LOADED,
        ],
    ),
    "a track without masks": (
        change(segmentations=[None] * 3),
        [("empty_mask", "annotation 1 of video 5 has no mask in any frame$")],
    ),
    "a mask without a pixel": (
        change(segmentations=[EMPTY, None, None]),
        [
            ("empty_mask", r"annotation 1 of .*a/0\.png has a mask without a pixel"),
            ("box", r"annotation 1 of .*a/0\.png has a box without area"),
        ],
    ),
    "an unknown class": (
        change(category_id=3),
        [("class", "annotation 1 has category_id 3, which the data set does not"), NOT_LOADED],
    ),
    "a track twice": (
        lambda v: v.content["annotations"].append(v.content["annotations"][0]),
        [
            ("duplicate", "video 5 has 2 annotations of id 1"),
            ("annotations", r"own_video cannot .*: annotation 1 is twice in frame a/0\.png"),
        ],
    ),
    "a file that is not JSON": (
        lambda v: setattr(v, "write", lambda: cut(v.json)),
        [("annotations", r"train\.json is not a JSON file")],
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(check, videos: Videos, monkeypatch, name: str) -> None:
    monkeypatch.setattr(
        dataset_check, "draw_contact_sheet", lambda *_: np.zeros((1, 1, 3), np.uint8)
    )
    videos.write()
    damage, expected = DAMAGES[name]
    damage(videos)
    report = check()
    found = [problem for problems in report.problems.values() for problem in problems]
    assert sorted(problem.kind for problem in found) == sorted(kind for kind, _ in expected), found
    for kind, message in expected:
        assert any(p.kind == kind and re.search(message, p.message) for p in found), found
    assert all("\n" not in problem.message for problem in found)


def test_only_videos_without_damage_are_drawn(check, videos: Videos, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(
        dataset_check,
        "draw_contact_sheet",
        lambda records, _: drawn.extend(records) or np.zeros((1, 1, 3), np.uint8),
    )
    (videos.images / "a/1.png").unlink()
    check()
    assert [record["video_id"] for record in drawn] == [2]
