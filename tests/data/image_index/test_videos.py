from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from ddep.data.image_index import list_images, open_index, videos
from ddep.data.image_index.containers import container_of_video
from ddep.data.image_index.videos import list_video, sample
from ddep.data.image_reader import read_image
from ddep.errors import UserError
from tests.data.image_index.trees import Tar, ids, pack, write_tree
from tests.data.videos import TRIMMED_H264, read_all, truncate, write_video


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_frames_images_and_tar_files_are_mixed(tmp_path: Path) -> None:
    write_tree(tmp_path / "in", {"b.jpg": b"1", "a": {"z.png": b"2"}, "t": Tar({"x.png": b"3"})})
    write_video(tmp_path / "in" / "a" / "walk.mp4", frames=25)  # 2.5 s
    write_video(tmp_path / "in" / "Cut.AVI", frames=1)
    (tmp_path / "in" / ".hidden.mp4").write_bytes(b"")
    index = open_index(tmp_path / "in")
    expected = [
        "Cut.AVI#000000",
        *("a/walk.mp4#000000", "a/walk.mp4#000010", "a/walk.mp4#000020"),
        *("a/z.png", "b.jpg", "t/x.png"),
    ]
    assert ids(index) == expected
    frames = read_all(tmp_path / "in" / "a" / "walk.mp4")
    for record, number in zip(index[1:4], (0, 10, 20), strict=True):
        assert set(record) == {"file_name", "image_id"}
        assert np.array_equal(read_image(record["file_name"]), frames[number])
    assert list_images(str(tmp_path / "in")) == ["a/z.png", "b.jpg"]


def test_one_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "walk.mp4", frames=15)
    assert ids(open_index(path)) == ["walk.mp4#000000", "walk.mp4#000010"]


@pytest.mark.parametrize("name", ["a.mp4", "b.avi", "c.webm", "trimmed.mp4"])
def test_all_frames_and_their_numbers(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "trimmed.mp4":
        path.write_bytes(TRIMMED_H264.read_bytes())
    else:
        write_video(path, codec="VP80" if path.suffix == ".webm" else "mp4v")
    frames = read_all(path)
    index = open_index(path, frame_rate=50.0)
    assert ids(index) == [f"{name}#{number:06d}" for number in range(len(frames))]
    for position in (0, 13, len(frames) - 1):
        assert np.array_equal(read_image(index[position]["file_name"]), frames[position])


def test_videos_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    read_times = videos.read_times

    def record(path: str, *, decode: bool):
        calls.append(decode)
        return read_times(path, decode=decode)

    monkeypatch.setattr(videos, "read_times", record)
    open_index(write_video(tmp_path / "a.mp4"))
    assert calls == [False]


@pytest.mark.parametrize("frame_rate", [0.3, 1.0, 7.0, 10.0, 100.0])
@pytest.mark.parametrize("even", [True, False])
def test_the_nearest_frames_are_chosen(frame_rate: float, even: bool) -> None:
    times = np.arange(80) * 100_000
    if not even:
        times = np.sort(np.random.default_rng(0).integers(0, 8_000_000, 80))
    end = times[-1] + (times[-1] - times[-2]) / 2
    moments = [times[0]]
    while (moment := times[0] + len(moments) * 1e6 / frame_rate) <= end:
        moments.append(moment)
    nearest = {min(range(80), key=lambda i: abs(times[i] - moment)) for moment in moments}
    assert sample(times, frame_rate).tolist() == sorted(nearest)
    assert sample(times[:1], frame_rate).tolist() == [0]
    assert sample(times[:0], frame_rate).tolist() == []


def test_long_videos_have_longer_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.array([0, 999_999, 1_000_000])
    monkeypatch.setattr(videos, "_choose_frames", lambda path, rate: (numbers, numbers, ""))
    path = write_video(tmp_path / "a.mp4", frames=1)
    names = list(list_video(str(path.parent), container_of_video("a.mp4"), print, 1.0).names)
    assert names == sorted(names) == ["0000000", "0999999", "1000000"]


def test_only_changed_videos_are_listed_again(
    tmp_path: Path, settled: None, listed: list[str]
) -> None:
    folder = tmp_path / "in"
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, frames=15)
    assert len(open_index(folder)) == 4
    listed.clear()
    assert len(open_index(folder)) == 4
    assert listed == []
    write_video(tmp_path / "longer.mp4", frames=35)
    (folder / "a.mp4").write_bytes((tmp_path / "longer.mp4").read_bytes())
    assert len(open_index(folder)) == 6
    assert listed == [f"{folder}/a.mp4/"]
    assert len(open_index(folder, frame_rate=2.0)) == 10


def test_damaged_videos_are_named_and_used_as_far_as_possible(
    tmp_path: Path, settled: None, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "in"
    write_video(folder / "good.mp4", frames=10)
    (folder / "no.mp4").write_bytes(b"no video")
    (folder / "empty.avi").write_bytes(b"")
    cut = write_video(folder / "cut.avi", frames=60, codec="MJPG")
    truncate(cut, 0.6)
    write_video(folder / "half.mp4", frames=60)
    truncate(folder / "half.mp4", 0.5)  # without its table of frames, which is at the end
    index = open_index(folder)
    assert ids(index) == [
        *("cut.avi#000000", "cut.avi#000010", "cut.avi#000020", "cut.avi#000030"),
        "good.mp4#000000",
    ]
    for record in index:
        read_image(record["file_name"])
    expected = {
        "cut.avi": "ends after 3. of 60 frames: it is damaged or truncated; copy it again",
        "empty.avi": "cannot be read",
        "half.mp4": "cannot be read: it is no video, damaged or in an unknown format; convert",
        "no.mp4": "cannot be read",
    }
    assert [os.path.basename(path) for path in index.damaged_videos()] == list(expected)
    messages = warnings(caplog)
    used = {"cut.avi": 4}
    for message, (name, problem) in zip(messages, expected.items(), strict=True):
        assert message.startswith(f"video {folder / name} ") and "\n" not in message
        assert message.endswith(f"; {used.get(name, 0)} of its frames are used")
        pytest.raises(UserError, _raise, message).match(problem)
    caplog.clear()
    assert ids(open_index(folder)) == ids(index)
    assert not warnings(caplog)


def _raise(message: str) -> None:
    raise UserError(message)


def test_a_video_that_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.webm", codec="VP80")
    content = path.read_bytes()
    # The duration, 8 bytes, becomes a void of as many bytes.
    path.write_bytes(content.replace(b"\x44\x89\x88", b"\xec\x89\x88"))
    index = open_index(path)
    assert not len(index)
    (problem,) = index.damaged_videos().values()
    assert f"write it again: ffmpeg -i {path} -c copy NEW.mp4" in problem


def test_videos_in_tar_files_are_left_out(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", frames=2).read_bytes()
    (tmp_path / "b.tar").write_bytes(pack({"a.mp4": video, "b.jpg": b"1"}))
    assert ids(open_index(tmp_path / "b.tar")) == ["b.jpg"]
