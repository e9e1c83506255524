from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.data.datasets.image_folder import (
    check_image_folder,
    find_images,
    load_image_folder,
    register_image_folder,
)
from ddep.data.image_index import indexing_progress
from ddep.errors import UserError
from tests.data.videos import write_video


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def ids(folder: Path) -> list[str]:
    return [record["image_id"] for record in load_image_folder(f"images:{folder}")]


def test_finds_images_at_any_depth_by_their_endings(tmp_path: Path) -> None:
    wanted = ["b/c/1.JPEG", "b/2.tiff", "a.png", "b.gif", "z/y/x/w.WebP", "b/10.jpg", "b/9.bmp"]
    touch(tmp_path, *wanted, "notes.txt", "jpg", "a.png.part", "b/labels.json", "weights.npy")
    records = load_image_folder(f"images:{tmp_path}")
    assert [record["image_id"] for record in records] == sorted(wanted)
    for record in records:
        assert set(record) == {"file_name", "image_id"}
        assert os.path.samefile(record["file_name"], tmp_path / record["image_id"])


def test_skips_hidden_files_and_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "._a.jpg", ".thumbnails/a.jpg", "b/.trash/a.png", "b/c.jpg")
    assert ids(tmp_path) == ["a.jpg", "b/c.jpg"]


def test_follows_links_but_enters_no_folder_twice(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    folder = tmp_path / "folder"
    touch(elsewhere, "1.jpg", "deep/2.jpg")
    touch(folder, "a/3.jpg")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "a" / "self").symlink_to(folder / "a")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "linked-again").symlink_to(elsewhere / "deep")
    (folder / "picture.jpg").symlink_to(elsewhere / "1.jpg")
    assert ids(folder) == ["a/3.jpg", "linked-again/2.jpg", "linked/1.jpg", "picture.jpg"]


def test_a_dangling_link_is_left_for_the_reader_to_report(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert ids(tmp_path) == ["gone.jpg"]


def test_relative_folders(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    touch(here, "both/here.jpg")
    touch(root, "both/there.jpg", "only/there.jpg")
    monkeypatch.chdir(here)
    assert [r["image_id"] for r in load_image_folder("images:both")] == ["here.jpg"]
    (only,) = load_image_folder("images:only")
    assert only["file_name"] == str(root / "only" / "there.jpg")


def test_a_registered_folder_is_listed_when_it_is_used(root: Path) -> None:
    name = "images:later"
    register_image_folder(name)
    touch(root, "later/1.jpg")
    assert len(DatasetCatalog.get(name)) == 1
    touch(root, "later/2.jpg")
    assert len(DatasetCatalog.get(name)) == 2
    assert MetadataCatalog.get(name).evaluator_type == "images"


def test_frames_a_second_are_part_of_the_name(root: Path) -> None:
    write_video(root / "clips" / "a.mp4", frames=20)  # two seconds
    touch(root, "clips/b.jpg", "odd@2fps/c.jpg")
    assert len(load_image_folder("images:clips")) == 2 + 1
    assert len(load_image_folder("images:clips@5fps")) == 10 + 1
    assert len(load_image_folder("images:clips@0.5fps")) == 1 + 1
    assert len(load_image_folder("images:clips/a.mp4@1000fps")) == 20
    assert len(load_image_folder("images:odd@2fps/")) == 1


def test_find_images_gives_paths(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a/c.png")
    assert find_images(tmp_path) == [str(tmp_path / "a" / "c.png"), str(tmp_path / "b.jpg")]


def test_progress_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(indexing_progress, "_LOG_EVERY", 2)
    touch(tmp_path, *(f"{i}.jpg" for i in range(5)))
    with caplog.at_level(logging.INFO):
        load_image_folder(f"images:{tmp_path}")
    progress = [r.getMessage() for r in caplog.records if "so far" in r.getMessage()]
    assert [message.split()[0] for message in progress] == ["2", "4"]


@pytest.mark.parametrize("load", [load_image_folder, check_image_folder])
def test_mistakes(load, root: Path, tmp_path: Path) -> None:
    touch(tmp_path, "file.jpg", "bare/notes.txt", "bare/.hidden/a.jpg", "bad/a.mp4", "bad/b.avi")
    for name, expected in [
        ("images:nowhere", f"no such folder; looked for .*nowhere and {root}/nowhere"),
        (f"images:{tmp_path}/file.jpg", "file.jpg is a file; expected a folder"),
        (f"images:{tmp_path}/bare", f"no images in {tmp_path}/bare or the folders in it; expected"),
        ("images:", "names no folder; write images:<folder>"),
        (
            f"images:{tmp_path}/bad",
            r"none of its videos \(2\) can be read; the first: video .*a.mp4 cannot be read: .*",
        ),
        (f"images:{tmp_path}@0fps", "takes '0' frames a second from videos; expected a number"),
        (f"images:{tmp_path}@-1fps", "takes '-1' frames a second"),
        (f"images:{tmp_path}@1.2.3fps", "expected a number above 0 and up to 1000, as in .*0.5fps"),
    ]:
        with pytest.raises(UserError, match=expected) as caught:
            load(name)
        assert "\n" not in str(caught.value)


def test_find_images_says_what_is_wrong(tmp_path: Path) -> None:
    touch(tmp_path, "file.jpg")
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(UserError, match="file.jpg is a file"):
        find_images(tmp_path / "file.jpg")


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.jpg", "locked/b.jpg")
    scandir = os.scandir

    def refuse(path):
        if str(path).rstrip("/").endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="locked/: cannot be listed .Permission denied"):
        load_image_folder(f"images:{tmp_path}")
