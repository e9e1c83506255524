"""Tar files, whole and damaged."""

from __future__ import annotations

import gzip
import io
import logging
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ddep.data.image_index import list_images, open_index
from ddep.errors import UserError
from tests.data.image_index.trees import Tar, add_file, contents, flatten, pack, write_tree

IMAGENET = Tar(
    {
        "n01440764": Tar({"n01440764_10026.JPEG": b"tench" * 200, "n01440764_18.JPEG": b"t"}),
        "n01443537": Tar({"n01443537_2.JPEG": b"goldfish" * 99, "n01443537_16.JPEG": b""}),
    }
)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


def test_a_tar_file_gives_what_the_unpacked_folder_gives(tmp_path: Path) -> None:
    packed, unpacked = tmp_path / "ILSVRC2012_img_train.tar", tmp_path / "train"
    packed.write_bytes(pack(IMAGENET))
    for name, content in flatten(IMAGENET).items():
        (unpacked / name).parent.mkdir(parents=True, exist_ok=True)
        (unpacked / name).write_bytes(content)
    assert contents(open_index(packed)) == contents(open_index(unpacked)) == flatten(IMAGENET)
    assert min(contents(open_index(packed))) == "n01440764/n01440764_10026.JPEG"


def test_a_folder_of_tar_files(tmp_path: Path) -> None:
    write_tree(tmp_path, {"root": {"in": dict(IMAGENET), "a.jpg": b"a"}})
    found = contents(open_index(tmp_path / "root"))
    assert found == {"a.jpg": b"a"} | {f"in/{k}": v for k, v in flatten(IMAGENET).items()}
    assert list_images(str(tmp_path / "root")) == ["a.jpg"]


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_formats(tmp_path: Path, style: int) -> None:
    tree = {"d" * 60: {"e" * 60: {"f" * 60 + ".jpg": b"long", "g.png": b"x" * 513}}, "a.jpg": b""}
    if style != tarfile.USTAR_FORMAT:
        tree |= {"é" * 80: {"ü" * 120 + ".jpg": b"longer"}}
    path = tmp_path / "a.tar"
    path.write_bytes(pack(tree, format=style))
    assert contents(open_index(path)) == flatten(tree)


def write_by_hand(path: Path, fill: Callable[[tarfile.TarFile], object]) -> Path:
    with tarfile.open(path, "w") as archive:
        fill(archive)
    return path


def add_link(archive: tarfile.TarFile, kind: bytes, name: str, target: str) -> None:
    link = tarfile.TarInfo(name)
    link.type, link.linkname = kind, target
    archive.addfile(link)


def test_names_are_those_that_unpacking_gives(tmp_path: Path) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        for name in ("./b/1.jpg", "/c/2.jpg", "a//3.jpg", "a/./4.jpg"):
            add_file(archive, name, name.encode())
        for name in (".hidden.jpg", "d/._5.jpg", ".thumbnails/6.jpg", "../out.jpg", "7.txt"):
            add_file(archive, name, b"")
        add_file(archive, "a/3.jpg", b"the last one counts")

    assert contents(open_index(write_by_hand(tmp_path / "a.tar", fill))) == {
        "a/3.jpg": b"the last one counts",
        "a/4.jpg": b"a/./4.jpg",
        "b/1.jpg": b"./b/1.jpg",
        "c/2.jpg": b"/c/2.jpg",
    }


def test_links_in_tar_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        add_link(archive, tarfile.SYMTYPE, "a/soft.jpg", "../objects/1")
        add_file(archive, "objects/1", b"one")
        add_link(archive, tarfile.LNKTYPE, "a/hard.jpg", "objects/1")
        add_link(archive, tarfile.SYMTYPE, "a/chain.jpg", "hard.jpg")
        add_link(archive, tarfile.SYMTYPE, "a/gone.jpg", "nowhere.jpg")
        add_link(archive, tarfile.SYMTYPE, "a/circle.jpg", "circle.jpg")

    found = contents(open_index(write_by_hand(tmp_path / "a.tar", fill)))
    assert found == {f"a/{name}.jpg": b"one" for name in ("chain", "hard", "soft")}
    assert warnings(caplog) == [f"{tmp_path}/a.tar: 2 links to files not in it are left out"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_folder_takes_precedence_over_its_tar_file(
    tmp_path: Path, packed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tree = {"x": {"1.jpg": b"1"}}
    root = tmp_path / "root"
    write_tree(root, {"in": Tar(tree)} if packed else {"in": tree})
    if packed:

        def fill(archive: tarfile.TarFile) -> None:
            add_file(archive, "x.tar", pack({"2.jpg": b"2"}))
            add_file(archive, "x/1.jpg", b"1")

        write_by_hand(root / "in.tar", fill)
    else:
        (root / "in" / "x.tar").write_bytes(pack({"2.jpg": b"2"}))
    assert contents(open_index(root)) == {"in/x/1.jpg": b"1"}
    [warning] = warnings(caplog)
    assert "x.tar" in warning
    assert "x/" in warning
    assert "is used instead" in warning


def test_compressed_tar_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    compressed = tmp_path / "root" / "winter21_whole.tar.gz"
    compressed.parent.mkdir()
    compressed.write_bytes(gzip.compress(pack(IMAGENET)))
    for source in (compressed, compressed.parent):
        with pytest.raises(
            UserError, match="winter21_whole.tar.gz is compressed.*gunzip"
        ) as caught:
            open_index(source)
        assert "\n" not in str(caught.value)
    caplog.clear()
    (tmp_path / "root" / "a.jpg").touch()
    assert contents(open_index(tmp_path / "root")) == {"a.jpg": b""}
    [warning] = warnings(caplog)
    assert "winter21_whole.tar.gz is compressed" in warning
    # Some have the ending and are plain tar files.
    compressed.write_bytes(pack(IMAGENET))
    assert contents(open_index(compressed)) == flatten(IMAGENET)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    whole = pack({"a.jpg": b"a" * 1000, "b.jpg": b"b", "in": Tar({"c.jpg": b"c" * 600})})
    end = len(whole.rstrip(b"\0"))
    path = tmp_path / "a.tar"
    for length in range(0, end, 173):
        path.write_bytes(whole[:length])
        with pytest.raises(
            UserError, match=r"a\.tar is no tar file, damaged or not whole"
        ) as caught:
            open_index(path)
        assert "\n" not in str(caught.value)


def test_at_the_edges_of_blocks(tmp_path: Path) -> None:
    """A download may stop between two files, where tar programs see nothing wrong."""
    whole = pack({f"{i}.jpg": b"x" * 512 for i in range(4)})
    path = tmp_path / "a.tar"
    for length in range(512, 4 * 1024 + 1, 512):
        path.write_bytes(whole[:length])
        with pytest.raises(
            UserError, match="not whole: (its end is missing|unexpected end of data);"
        ):
            open_index(path)
    path.write_bytes(whole[: 4 * 1024 + 512])
    assert len(open_index(path)) == 4


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    whole = bytearray(pack({f"{i}.jpg": b"x" * 512 for i in range(4)}))
    whole[2 * 1024 + 5] ^= 1
    path = tmp_path / "a.tar"
    path.write_bytes(whole)
    with pytest.raises(UserError, match="no header at byte 2048"):
        open_index(path)


def test_a_damaged_tar_file_in_a_tar_file_is_named(tmp_path: Path) -> None:
    class_file = pack({f"{i}.jpg": b"x" * 512 for i in range(4)})

    def fill(archive: tarfile.TarFile) -> None:
        add_file(archive, "n1.tar", class_file)
        add_file(archive, "n2.tar", class_file[:2048])
        add_file(archive, "n3.tar", class_file)

    path = write_by_hand(tmp_path / "train.tar", fill)
    with pytest.raises(UserError, match=r"train\.tar \(n2\.tar in it\) is no tar file, damaged"):
        open_index(path)


def test_a_negative_size(tmp_path: Path) -> None:
    """It would send the reader back to the same header."""
    header = bytearray(pack({"a.jpg": b""})[:512])
    header[124:136] = (-1024).to_bytes(12, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "a.tar"
    path.write_bytes(header + bytes(2048))
    with pytest.raises(UserError, match=r"a\.jpg has a negative size"):
        open_index(path)


def test_sparse_files(tmp_path: Path) -> None:
    def fill(archive: tarfile.TarFile) -> None:
        member = tarfile.TarInfo("a.jpg")
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "a.jpg",
            "GNU.sparse.realsize": "4096",
        }
        data = b"1\n0\n512\n".ljust(512, b"\0") + b"x" * 512
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))

    path = write_by_hand(tmp_path / "a.tar", fill)
    with pytest.raises(UserError, match=r"a\.jpg in it is stored with holes.*unpack"):
        open_index(path)


def test_random_damage_is_an_error_or_harmless(tmp_path: Path) -> None:
    """No error other than ``UserError``, and no part beyond the file's end."""
    numbers = random.Random(0)
    whole = pack({"a.jpg": b"a" * 99, "é" * 90 + ".jpg": b"b", "in": Tar({"c.jpg": b"c"})})
    path = tmp_path / "a.tar"
    outcomes = set()
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(numbers.choice((1, 3, 30))):
            damaged[numbers.randrange(len(whole.rstrip(b"\0")))] = numbers.randrange(256)
        path.write_bytes(damaged)
        try:
            outcomes.add(len(contents(open_index(path))) <= 3)
        except UserError as error:
            assert str(path) in str(error)
            outcomes.add("error")
    assert outcomes == {True, "error"}


@pytest.mark.parametrize("content", [b"", b"no tar file at all", b"x" * 5000])
def test_files_that_are_no_tar_files(tmp_path: Path, content: bytes) -> None:
    write_tree(tmp_path / "root", {"a.jpg": b"", "b.tar": content})
    with pytest.raises(UserError, match=r"root/b\.tar is no tar file.*take it out of the folder"):
        open_index(tmp_path / "root")
