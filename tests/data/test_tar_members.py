from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from detectron2.utils.file_io import PathManager
from PIL import Image

from ddep.data import tar_members
from ddep.data.image_reader import UnreadableImageError, read_image
from ddep.data.tar_members import name_member


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a #?offset=1&size=2# b.tar"
    path.write_bytes(bytes(range(256)))
    return path


def read(name: str) -> bytes:
    with PathManager.open(name, "rb") as file:
        return file.read()


def test_the_name_gives_exactly_these_bytes(path: Path) -> None:
    assert read(name_member(str(path), 10, 20, "n1/x.jpg")) == bytes(range(10, 30))
    assert read(name_member(str(path), 256, 0, "#?")) == b""
    with PathManager.open(name_member(str(path), 10, 20, "x"), "rb") as file:
        file.seek(-2, os.SEEK_END)
        assert file.read() == bytes((28, 29))
        file.seek(1)
        assert file.read(1) == bytes((11,))


def test_images_in_a_tar_file_are_read(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.tar").write_bytes(b"before" + content + b"after")
    name = name_member(str(tmp_path / "a.tar"), 6, len(content), "n1/a.png")
    np.testing.assert_array_equal(read_image(name), pixels)
    with pytest.raises(UnreadableImageError, match=r"a\.tar\?offset=7&size=9#n1/a\.png"):
        read_image(name_member(str(tmp_path / "a.tar"), 7, 9, "n1/a.png"))


def test_which_members_exist(path: Path) -> None:
    for offset, size, expected in ((0, 256, True), (0, 257, False), (250, 6, True)):
        name = name_member(str(path), offset, size, "x")
        assert PathManager.exists(name) is PathManager.isfile(name) is expected
    assert not PathManager.exists(name_member(str(path) + "x", 0, 1, "x"))


def test_mistakes(path: Path) -> None:
    with pytest.raises(OSError, match="shorter than when it was indexed"):
        read(name_member(str(path), 200, 57, "x"))
    with pytest.raises(FileNotFoundError):
        read(name_member(str(path) + "x", 0, 1, "x"))
    with pytest.raises(OSError, match="expected tar://FILE"):
        read("tar:///data/train.tar")
    with pytest.raises(OSError, match="rb only"):
        PathManager.open(name_member(str(path), 0, 1, "x"), "wb")


def test_a_file_that_was_replaced_is_opened_again(path: Path) -> None:
    name = name_member(str(path), 0, 2, "x")
    assert read(name) == b"\0\1"
    new = path.with_name("new")
    new.write_bytes(b"new")
    new.replace(path)
    assert read(name) == b"ne"


def test_few_files_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads read more files than may stay open: the content is right, the rest are closed."""
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        pytest.skip("counts open files in /proc")
    names = []
    for i in range(tar_members._OPEN_FILES + 30):
        (tmp_path / f"{i}.tar").write_bytes(b"%05d" % i)
        names.append(name_member(str(tmp_path / f"{i}.tar"), 0, 5, "x"))
    tar_members._open_file.cache_clear()
    before = len(list(descriptors.iterdir()))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read, names * 5))
    assert found == [b"%05d" % i for i in range(len(names))] * 5
    assert len(list(descriptors.iterdir())) - before == tar_members._OPEN_FILES
