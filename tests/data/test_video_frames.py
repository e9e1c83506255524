from __future__ import annotations

import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils.file_io import PathManager
from torch.utils.data import DataLoader

from ddep.data import video_frames
from ddep.data.file_paths import path_of
from ddep.data.image_reader import UnreadableImageError, read_image
from ddep.data.video_capture import current_time, open_capture
from ddep.data.video_frames import VideoFrames, name_frame
from tests.data.videos import TRIMMED_H264, read_all, speed_up, turn_right, write_video

KINDS = {"a.mp4": "mp4v", "b.avi": "mp4v", "c.avi": "MJPG", "d.webm": "VP80"}


def names(path: Path) -> list[str]:
    """The names of all frames."""
    capture, found = open_capture(str(path)), []
    while capture.grab():
        found.append(name_frame(str(path), len(found), current_time(capture)))
    return found


def check_equal(path: Path) -> None:
    """In any order, frames are those of sequential reading."""
    frames, order = read_all(path), names(path)
    assert len(frames) == len(order) > 30
    assert not np.array_equal(frames[20], frames[21])
    positions = random.Random(0).sample(range(len(order)), len(order))
    for position in [*positions, *range(len(order)), 7, 7]:
        assert np.array_equal(read_image(order[position]), frames[position]), position


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_of_sequential_reading(tmp_path: Path, name: str) -> None:
    check_equal(write_video(tmp_path / name, codec=KINDS[name]))


def test_h264_with_hidden_frames() -> None:
    check_equal(TRIMMED_H264)


def test_frames_that_are_not_evenly_spaced(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    speed_up(path, normal=15)
    check_equal(path)


def test_frames_are_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    before = read_all(path)[9]
    turn_right(path)
    found = read_image(names(path)[9])
    assert found.shape == (48, 32, 3)
    assert np.array_equal(found, np.rot90(before, -1))


def test_few_frames_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", frames=200)
    grabbed: list[int] = []
    sought: list[int] = []
    grab, seek = VideoFrames._grab, VideoFrames._seek
    monkeypatch.setattr(VideoFrames, "_grab", lambda self: (grabbed.append(1), grab(self)))
    monkeypatch.setattr(
        VideoFrames, "_seek", lambda self, time: (sought.append(time), seek(self, time))
    )
    order = names(path)
    for position, seeks, most in [(150, 1, 3), (152, 0, 2), (152, 0, 0), (60, 1, 3), (199, 1, 3)]:
        grabbed.clear()
        sought.clear()
        read_image(order[position])
        assert (len(sought), len(grabbed) <= most) == (seeks, True), position


def read_mean(name: str) -> float:
    return float(read_image(name).mean(dtype=np.float64))


def test_threads_and_worker_processes(tmp_path: Path) -> None:
    # Larger than what FFmpeg reads ahead: a file's position matters.
    paths = [
        write_video(tmp_path / f"{i}.avi", codec="MJPG", size=(240 + 80 * i, 240)) for i in range(2)
    ]
    order = [name for path in paths for name in names(path)]
    random.Random(1).shuffle(order)
    expected = [read_mean(name) for name in order]  # also opens them before the fork
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read_mean, order)) == expected
    loader = DataLoader(order, batch_size=None, num_workers=2, collate_fn=read_mean)
    assert [float(mean) for mean in loader] == expected
    assert [read_mean(name) for name in order] == expected


def test_few_videos_are_open(tmp_path: Path) -> None:
    first = write_video(tmp_path / "0.mp4", frames=3)
    for i in range(1, 9):
        shutil.copy(first, tmp_path / f"{i}.mp4")
    video_frames._open_video.cache_clear()
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("open files are counted in /proc")
    before = len(list(descriptors.iterdir()))
    for i in range(9):
        read_image(names(tmp_path / f"{i}.mp4")[1])
    assert len(list(descriptors.iterdir())) - before == video_frames._OPEN_VIDEOS


def test_a_video_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    name = names(path)[4]
    assert read_image(name).shape == (32, 48, 3)
    os.replace(write_video(tmp_path / "b.mp4", size=(64, 48)), path)
    assert read_image(name).shape == (48, 64, 3)


def test_damage_is_said_in_one_line(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    missing = name_frame(str(path), 5, 550_000)  # between two frames
    beyond = name_frame(str(path), 900, 90_000_000)
    for name in (missing, beyond):
        with pytest.raises(UnreadableImageError, match="a.mp4.*damaged or missing") as caught:
            read_image(name)
        assert "\n" not in str(caught.value)
    good = names(path)[5]
    path.write_bytes(b"no video")
    with pytest.raises(UnreadableImageError, match="a.mp4.*the video cannot be opened"):
        read_image(good)
    path.unlink()
    with pytest.raises(UnreadableImageError, match="No such file"):
        read_image(good)
    assert not PathManager.isfile(good)
    with pytest.raises(OSError, match="as rb only"):
        PathManager.open(good, "wb")
    with pytest.raises(UnreadableImageError, match="expected video://FILE"):
        read_image("video://a.mp4")


def test_names_for_people(tmp_path: Path) -> None:
    name = name_frame("/data/a b#1?.mp4", 25, 1_000_000)
    assert path_of(name) == "/data/a b#1?.mp4#000025"
    assert path_of("/data/a.jpg") == "/data/a.jpg"
    path = write_video(tmp_path / "a #1?.mp4")
    assert PathManager.isfile(names(path)[3])
    assert torch.from_numpy(read_image(names(path)[3])).shape == (32, 48, 3)
