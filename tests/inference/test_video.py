from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddep.errors import UserError
from ddep.files import remove_leftovers
from ddep.inference.video import FrameFolder, Video
from ddep.inference.video_writing import draw_video, new_video
from tests.checkpoint.full_disk import full_disk

SIZE = (64, 48)


def frame(number: int) -> np.ndarray:
    """Reddish, brighter from frame to frame."""
    colour = (40 + 20 * number, 10, 30)
    return np.full((SIZE[1], SIZE[0], 3), colour, dtype=np.uint8)


def number_of(picture: np.ndarray) -> int:
    """Which :func:`frame` it is, after lossy compression."""
    red, green, blue = picture.reshape(-1, 3).mean(0)
    assert red > green + 15 and red > blue
    return round((red - 40) / 20)


def write(path: Path, frames: int = 8, rate: float = 12.5) -> Path:
    with new_video(path, rate) as add:
        for number in range(frames):
            add(frame(number))
    return path


@pytest.mark.parametrize("name", ["a.mp4", "b.avi", "C.AVI"])
@pytest.mark.parametrize("rate", [12.5, 30000 / 1001])
def test_frames_and_their_rate_are_kept(tmp_path: Path, name: str, rate: float) -> None:
    video = Video(write(tmp_path / "in" / name, rate=rate))
    assert video.rate == pytest.approx(rate, rel=1e-4)
    assert len(video) == 8
    for _ in range(2):
        assert [number_of(picture) for picture in video] == list(range(8))
    output = tmp_path / "out" / name
    drawn: list[int] = []

    def draw(picture: np.ndarray) -> np.ndarray:
        drawn.append(number_of(picture))
        return np.concatenate([picture, picture], axis=1)

    assert draw_video(video, draw, output) == 8
    assert drawn == list(range(8))
    found = list(Video(output))
    assert [number_of(picture) for picture in found] == list(range(8))
    assert found[0].shape == (48, 128, 3) and found[0].dtype == np.uint8
    assert Video(output).rate == pytest.approx(rate, rel=1e-4)
    assert [path.name for path in output.parent.iterdir()] == [name]


def test_one_frame_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """A frame is read when the one before it has been written."""
    events: list[str] = []

    class Source:
        path, rate = tmp_path, 10.0

        def __len__(self) -> int:
            return 3

        def __iter__(self):
            for number in range(3):
                events.append(f"read {number}")
                yield frame(number)

    def draw(picture: np.ndarray) -> np.ndarray:
        events.append(f"draw {number_of(picture)}")
        return picture

    draw_video(Source(), draw, tmp_path / "a.mp4")
    assert events == ["read 0", "draw 0", "read 1", "draw 1", "read 2", "draw 2"]


def test_a_truncated_video_gives_what_could_be_read_and_one_line(tmp_path: Path) -> None:
    damaged = write(tmp_path / "damaged.avi")
    data = damaged.read_bytes()
    first, last = data.index(b"movi"), data.index(b"idx1")
    damaged.write_bytes(data[: (first + last) // 2])
    output = tmp_path / "out.mp4"
    message = r"damaged\.avi ends after (\d) of 8 frames.*; .*out\.mp4 has (\d) frames$"
    with pytest.raises(UserError, match=message) as raised:
        draw_video(Video(damaged), lambda picture: picture, output)
    found = [number_of(picture) for picture in Video(output)]
    assert 1 <= len(found) < 8 and found == list(range(len(found)))
    assert f"after {len(found)} of" in str(raised.value)


def test_frames_of_a_folder_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (2, 0, 10, 1):
        Image.fromarray(frame(min(number, 3))).save(tmp_path / f"f{number}.png")
    folder = FrameFolder(tmp_path, rate=7.0)
    assert len(folder) == 4
    assert [number_of(picture) for picture in folder] == [0, 1, 2, 3]
    (tmp_path / "f1.png").write_bytes(b"no image")
    output = tmp_path / "out" / "a.mp4"
    with pytest.raises(UserError, match=r"1 of 4 frames could not be read: .*f1\.png.* 3 frames"):
        draw_video(folder, lambda picture: picture, output)
    assert [number_of(picture) for picture in Video(output)] == [0, 2, 3]
    assert Video(output).rate == pytest.approx(7)


def test_videos_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    whole = write(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # its index is at the end
    (tmp_path / "empty.mp4").touch()
    cut = write(tmp_path / "header.avi").read_bytes()
    (tmp_path / "header.avi").write_bytes(cut[: cut.index(b"movi") + 4])
    for name, message in (
        ("text.mp4", "cannot be read"),
        ("cut.mp4", "cannot be read"),
        ("empty.mp4", "cannot be read"),
        ("absent.mp4", "does not exist"),
        ("header.avi", "(no frame|cannot be read)"),
    ):
        with pytest.raises(UserError, match=rf"video .*{name} .*{message}"):
            Video(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="no images in .*folder"):
        FrameFolder(tmp_path / "folder")


def test_frames_of_another_size_end_the_video(tmp_path: Path) -> None:
    pictures = [frame(0), frame(1), frame(2)[:40]]
    output = tmp_path / "a.mp4"
    write(tmp_path / "in.avi", 3)
    with pytest.raises(UserError, match=r"frame 3 is 64x40, .* 64x48; .*a\.mp4 has 2 frames"):
        draw_video(Video(tmp_path / "in.avi"), lambda _: pictures.pop(0), output)
    assert len(Video(output)) == 2


@pytest.mark.parametrize("name", ["a.mp4", "a.avi"])
def test_a_full_disk_is_noticed(tmp_path: Path, name: str) -> None:
    """OpenCV's writer fails silently."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 240, 320, 3), dtype=np.uint8)
    before = tmp_path / name
    before.write_text("what was there")
    with (
        full_disk(room=50_000),
        pytest.raises(UserError, match=r"a\.\w+ cannot be written: \d+ of 20 frames"),
        new_video(before, 25) as add,
    ):
        for picture in noise:
            add(picture)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert before.read_text() == "what was there"


def test_a_video_that_is_being_written_is_no_leftover(tmp_path: Path) -> None:
    with new_video(tmp_path / "a.mp4", 25) as add:
        add(frame(0))
        remove_leftovers(str(tmp_path))
        add(frame(1))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.gif: expected a name that ends in \.avi or \.mp4"):
        write(tmp_path / "a.gif")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path / "file" / "a.mp4")
    with pytest.raises(RuntimeError), new_video(tmp_path / "a.mp4", 25) as add:
        add(frame(0))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
