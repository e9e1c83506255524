"""Several processes, killed processes, and caches that cannot be written."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ddep.data.image_index import cache, lister, open_index, read_index, stored
from ddep.errors import UserError
from tests.data.image_index.trees import Tar, contents, flatten, ids, write_tree

pytestmark = pytest.mark.slow

FORK = multiprocessing.get_context("fork")
TREE = {f"n{i}": {f"{j}.jpg": b"%d %d" % (i, j) for j in range(5)} for i in range(6)}
TAR = Tar({f"n{i}": Tar({f"{j}.jpg": b"%d %d" % (i, j) for j in range(5)}) for i in range(6)})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path / "root", TREE)
    return tmp_path / "root"


def in_process(target: Callable[..., object], *arguments: object) -> multiprocessing.Process:
    process = FORK.Process(target=target, args=arguments)
    process.start()
    return process


def die_at(number: int, source: Path) -> None:
    """Index ``source``, but kill the process after ``number`` containers are listed."""
    listed = 0
    originals = {name: getattr(lister, name) for name in ("list_folder", "list_tar")}

    def list_container(name: str):
        def replacement(*arguments):
            nonlocal listed
            if listed == number:
                os.kill(os.getpid(), signal.SIGKILL)
            listed += 1
            return originals[name](*arguments)

        return replacement

    for name in originals:
        setattr(lister, name, list_container(name))
    open_index(source)


@pytest.mark.parametrize("kind", ["folders", "tar files"])
def test_a_killed_process_loses_nothing(
    tmp_path: Path, kind: str, settled: None, listed: list[str]
) -> None:
    """Killed twice: after three containers, and after two more."""
    write_tree(tmp_path, {"root": TREE if kind == "folders" else TAR})
    source = tmp_path / ("root" if kind == "folders" else "root.tar")
    for number, unfinished in ((3, 1), (2, 2)):
        process = in_process(die_at, number, source)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        home = cache.home_of(source)
        assert len(list(home.glob("unfinished-*"))) == unfinished
        assert not list(home.glob("index-*"))
    listed.clear()
    index = open_index(source)
    assert len(listed) == 7 - 5
    assert contents(index) == flatten(TREE)
    assert [path.name for path in home.iterdir() if path.is_dir()] == [index.folder.name]


def test_what_a_killed_process_wrote_is_checked(
    root: Path, settled: None, listed: list[str]
) -> None:
    """As after a power cut: garbage where names should be, and half a line at the end."""
    in_process(die_at, 4, root).join()
    [unfinished] = cache.home_of(root).glob("unfinished-*")
    names = (unfinished / stored.NAMES).read_bytes()
    assert names.startswith(b"0.jpg1.jpg")
    (unfinished / stored.NAMES).write_bytes(b"\0" * 10 + names[10:])
    lines = (unfinished / stored.CONTAINERS).read_bytes()
    (unfinished / stored.CONTAINERS).write_bytes(lines[:-20])
    assert contents(open_index(root)) == flatten(TREE)
    # The first folder, the one of the half line, and those that were not reached.
    assert listed == [f"{root}/n{i}/" for i in (0, 2, 3, 4, 5)]


def test_one_process_builds_for_all(root: Path, settled: None, listed: list[str]) -> None:
    barrier = FORK.Barrier(4)
    results = FORK.Queue()

    def ask() -> None:
        barrier.wait()
        index = open_index(root)
        results.put((len(listed), index.folder.name, ids(index)))

    processes = [in_process(ask) for _ in range(4)]
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(number for number, _, _ in found) == [0, 0, 0, 7]
    assert {folder for _, folder, _ in found} == {"index-000001"}
    assert all(images == sorted(flatten(TREE)) for _, _, images in found)


def test_waiting_processes_do_not_all_check(
    root: Path, settled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that began after another process asked also counts for that process."""
    open_index(root)
    looked = []
    is_current = cache._is_current

    def look(*arguments) -> bool:
        looked.append(1)
        return is_current(*arguments)

    monkeypatch.setattr(cache, "_is_current", look)
    open_index(root)
    assert len(looked) == 1
    lock = cache.home_of(root) / "lock"
    # It asks at 10 and looks at 20.
    for other_began, looks in (("15", False), ("9", True), ("21", True), ("", True), ("?", True)):
        clock = SimpleNamespace(time_ns=iter((10, 20)).__next__)
        lock.write_text(other_began)
        looked.clear()
        with monkeypatch.context() as patch:
            patch.setattr(cache, "time", clock)
            open_index(root)
        assert bool(looked) is looks


def test_failures_do_not_pile_up(
    root: Path, settled: None, listed: list[str], cache_of_test: Path
) -> None:
    """Indexing that repeatedly fails at the same place continues from there."""
    (root / "n4.tar").write_bytes(b"damaged")  # n4/ is used instead
    (root / "n5-.tar").write_bytes(b"damaged")
    for _ in range(5):
        with pytest.raises(UserError, match=r"n5-\.tar is no tar file"):
            open_index(root)
    assert len(listed) == 6 + 5
    assert len(list(cache_of_test.rglob("unfinished-*"))) == 2
    (root / "n5-.tar").unlink()
    assert contents(open_index(root)) == flatten(TREE)
    assert not list(cache_of_test.rglob("unfinished-*"))


@pytest.mark.parametrize("place", ["no folder", "no space"])
def test_a_cache_that_cannot_be_written(
    place: str,
    root: Path,
    cache_of_test: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if place == "no folder":
        cache_of_test.write_text("a file is in the way")
    else:
        original = cache._write

        def write(folder: Path, *arguments, **options) -> None:
            original(folder, *arguments, **options)
            if folder.is_relative_to(cache_of_test):
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(cache, "_write", write)
    index = open_index(root)
    [warning] = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert f"the index of {root} cannot be kept ([Errno " in warning
    assert "set DDEP_CACHE to a folder that can be written" in warning
    assert contents(index) == flatten(TREE)
    copy = pickle.loads(pickle.dumps(index))  # what a worker process gets
    assert list(copy) == list(index)
    in_process(
        read_index._remove, index.folder, os.getpid()
    ).join()  # when a worker's copy goes away
    assert index.folder.exists()
    folder = index.folder
    del copy
    assert folder.exists()
    del index
    assert not folder.exists()
    assert not list(cache_of_test.rglob("unfinished-*"))


def test_an_index_in_a_cache_that_is_read_only(
    root: Path, settled: None, listed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = open_index(root)
    listed.clear()

    def refuse(path: Path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "_locked", refuse)
    assert open_index(root).folder == made.folder
    assert listed == []


def test_not_even_a_temporary_index(
    root: Path, cache_of_test: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_of_test.write_text("a file is in the way")

    def refuse(**options) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.tempfile, "mkdtemp", refuse)
    with pytest.raises(UserError, match="No space left on device.*; set DDEP_CACHE") as caught:
        open_index(root)
    assert "\n" not in str(caught.value)


def test_no_home_folder(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DDEP_CACHE")
    monkeypatch.setattr(Path, "expanduser", fail)
    assert contents(open_index(root)) == flatten(TREE)
    assert "cannot be kept ([Errno 2] there is no home folder)" in caplog.text


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    monkeypatch.setenv("DDEP_CACHE", "~/mine")
    assert cache.cache_folder() == Path("/home/someone/mine")
    monkeypatch.delenv("DDEP_CACHE")
    assert cache.cache_folder() == Path("/elsewhere/ddep")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.cache_folder() == Path("/home/someone/.cache/ddep")
