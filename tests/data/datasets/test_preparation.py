from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ddep.data.datasets.panoptic import PanopticSplit, load_panoptic
from ddep.data.datasets.preparation import (
    PanopticWriter,
    check_range,
    copy_file,
    do_jobs,
    image_pairs,
    new_file,
)
from ddep.data.datasets.shape_scenes import CATEGORIES
from ddep.errors import UserError


def test_a_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with new_file(path) as file:
        file.write(b"old")
        assert not path.exists()
    assert path.read_text() == "old"
    with pytest.raises(RuntimeError), new_file(path) as file:
        file.write(b"half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
    with path.open() as reader:  # has the old file, which is replaced, not overwritten
        with new_file(path) as file:
            file.write(b"new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def end_process_or_name(path: Path) -> str:
    if path.name == "deadly":
        os._exit(1)
    return path.name


def test_jobs_keep_their_order_and_a_dead_worker_is_an_error() -> None:
    paths = [Path(str(number)) for number in range(20)]
    done = do_jobs(end_process_or_name, paths, lambda path: path, workers=2, progress="test")
    assert list(done) == [path.name for path in paths]
    paths[3] = Path("deadly")
    done = do_jobs(end_process_or_name, paths, lambda path: path, workers=2, progress="test")
    assert [next(done) for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(UserError, match="the process that prepared deadly died; check the file"):
        next(done)


def test_copying_a_file_onto_itself_leaves_it(tmp_path: Path) -> None:
    source, link, target = tmp_path / "a", tmp_path / "link", tmp_path / "b" / "a"
    source.write_text("content")
    link.symlink_to(source)
    copy_file(source, source)
    copy_file(source, link)
    copy_file(source, target)
    assert link.is_symlink()
    assert source.read_text() == target.read_text() == "content"
    target.write_text("changed")
    assert source.read_text() == "content"


def test_pairs_by_name_in_order(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for name in ("b.x.jpg", "a.PNG", "c.png", ".hidden.png", "list.txt"):
        (images / name).touch()
    for name in ("a_mask.png", "b.x_mask.png", "c_mask.png", "._a_mask.png", "notes.png"):
        (labels / name).touch()
    assert image_pairs(images, labels, "_mask.png", "") == [
        (images / "a.PNG", labels / "a_mask.png"),
        (images / "b.x.jpg", labels / "b.x_mask.png"),
        (images / "c.png", labels / "c_mask.png"),
    ]


def test_pairs_that_are_not_pairs(tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"

    def pairs() -> list[tuple[Path, Path]]:
        return image_pairs(images, labels, ".png", "images/ and labels/")

    with pytest.raises(UserError, match="images is not a folder; expected images/ and labels/"):
        pairs()
    images.mkdir()
    with pytest.raises(UserError, match="labels is not a folder"):
        pairs()
    labels.mkdir()
    with pytest.raises(UserError, match="no .png or .jpg images in it"):
        pairs()
    (images / "a.jpg").touch()
    with pytest.raises(UserError, match="images/a.jpg: its label .*labels/a.png is missing"):
        pairs()
    (labels / "a.png").touch()
    (labels / "b.png").touch()
    with pytest.raises(UserError, match="labels/b.png: there is no such image in .*images"):
        pairs()
    (labels / "b.png").unlink()
    (images / "a.png").touch()
    with pytest.raises(UserError, match="a.png and a.jpg have the same name"):
        pairs()


def test_range() -> None:
    check_range(Path("a.png"), np.array([[0, 11]]), 11, "")
    for wrong in (12, -1):
        with pytest.raises(UserError, match=f"a.png: label {wrong} is out of range; expected 0..1"):
            check_range(Path("a.png"), np.array([[0, wrong]]), 11, "0..11")


def test_a_split_is_absent_while_it_is_being_written(tmp_path: Path) -> None:
    split = PanopticSplit.below(tmp_path, "val")
    sem_seg = np.full((3, 4), 4, dtype=np.uint8)
    panoptic = np.ones((3, 4), dtype=np.int32)
    writer = PanopticWriter(split, CATEGORIES)
    writer.add("a.jpg", sem_seg, panoptic, {1: 5})
    assert not split.panoptic_json.exists()
    writer.finish()
    content = json.loads(split.panoptic_json.read_text())
    assert content["images"] == [{"id": 1, "file_name": "a.jpg", "height": 3, "width": 4}]
    assert content["categories"] == CATEGORIES
    split.image_root.mkdir()
    (split.image_root / "a.jpg").touch()
    assert load_panoptic(split, CATEGORIES)[0]["segments_info"][0]["area"] == 12
    PanopticWriter(split, CATEGORIES)
    assert not split.panoptic_json.exists()
