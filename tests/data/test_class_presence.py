"""Finding the classes that images show, and caching them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ddep.data.class_presence as class_presence
from ddep.data.class_presence import CACHE, find_classes
from ddep.errors import UserError

SHOWN = [[0], [0, 2], [1, 2], []]


@pytest.fixture
def records(tmp_path: Path) -> list[dict]:
    """Images with the classes in ``SHOWN``, and void."""
    for i, classes in enumerate(SHOWN):
        labels = np.full((4, 6), 255, np.uint8)
        for row, label in enumerate(classes):
            labels[row, row:] = label
        Image.fromarray(labels).save(tmp_path / f"{i}.png")
    return [
        {"file_name": f"{i}.jpg", "sem_seg_file_name": str(tmp_path / f"{i}.png")}
        for i in range(len(SHOWN))
    ]


@pytest.fixture
def cfg(config, tmp_path: Path):
    return config(
        *("OUTPUT_DIR", str(tmp_path / "out"), "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3),
        *("DATALOADER.NUM_WORKERS", 0),
    )


def found(cfg, records: list[dict]) -> list[list[int]]:
    arrays = find_classes(cfg, records)
    assert {array.dtype for array in arrays} == {np.dtype(np.int64)}
    return [array.tolist() for array in arrays]


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The label images that were read."""
    paths: list[str] = []
    usual = class_presence.read_labels
    monkeypatch.setattr(
        class_presence, "read_labels", lambda path: paths.append(path) or usual(path)
    )
    return paths


def test_label_images_are_read_once(cfg, records, read, tmp_path: Path) -> None:
    assert found(cfg, records) == SHOWN
    assert read == [record["sem_seg_file_name"] for record in records]
    assert found(cfg, records) == SHOWN
    assert len(read) == 4
    assert os.listdir(tmp_path / "out") == [CACHE]


def test_changed_files_are_read_again(cfg, records, read) -> None:
    found(cfg, records)
    Image.fromarray(np.ones((5, 7), np.uint8)).save(records[0]["sem_seg_file_name"])
    assert found(cfg, records) == [[1], *SHOWN[1:]]
    assert found(cfg, records[1:]) == SHOWN[1:]
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 2
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 256
    assert found(cfg, records[1:]) == [[0, 255], [1, 255], [255]]
    assert len(read) == 4 + 4 + 3 + 3


@pytest.mark.parametrize("damage", ["", "[]", '{"key": 3', '{"key": "0", "classes": []}'])
def test_a_damaged_cache_is_replaced(cfg, records, read, damage: str) -> None:
    found(cfg, records)
    Path(cfg.OUTPUT_DIR, CACHE).write_text(damage)
    assert found(cfg, records) == SHOWN
    assert found(cfg, records) == SHOWN
    assert len(read) == 8


def test_worker_processes_find_the_same(cfg, records) -> None:
    cfg.DATALOADER.NUM_WORKERS = 2
    assert found(cfg, records) == SHOWN


def test_unreadable_label_images_show_nothing_and_count(cfg, records, caplog) -> None:
    Path(records[1]["sem_seg_file_name"]).write_bytes(b"broken")
    os.remove(records[2]["sem_seg_file_name"])
    with caplog.at_level(logging.WARNING, "ddep"):
        for _ in range(2):  # the second time from the cache
            assert found(cfg, records) == [SHOWN[0], [], [], SHOWN[3]]
    skipped = [line for line in caplog.messages if line.startswith("skipped: label image")]
    assert len(skipped) == 4 and records[1]["sem_seg_file_name"] in skipped[0]
    cfg.INPUT.MAX_UNREADABLE = 1
    with pytest.raises(UserError, match="2 training images cannot be read, but INPUT.MAX_UNREAD"):
        find_classes(cfg, records)


def test_labels_out_of_range(cfg, records) -> None:
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    with pytest.raises(UserError, match=r"1\.png has classes 2; expected 0 to 1"):
        find_classes(cfg, records)


@pytest.mark.parametrize(
    ("mapper", "key"),
    [("mask_former_panoptic", "segments_info"), ("mask_former_instance", "annotations")],
)
def test_listed_objects(cfg, mapper: str, key: str) -> None:
    cfg.INPUT.DATASET_MAPPER_NAME = mapper
    entries = [
        [{"category_id": 2}, {"category_id": 0, "iscrowd": 0}, {"category_id": 2}],
        [{"category_id": 1, "iscrowd": 1}],
        [],
    ]
    records = [{"file_name": "a.jpg", key: entry} for entry in entries]
    assert found(cfg, records) == [[0, 2], [], []]
    assert not Path(cfg.OUTPUT_DIR).exists()
    records[2][key] = [{"category_id": 3}]
    with pytest.raises(UserError, match=r"a\.jpg has classes 3; expected 0 to 2"):
        find_classes(cfg, records)


@pytest.mark.parametrize(
    ("mapper", "key"),
    [
        ("mask_former_panoptic", "segments_info"),
        ("mask_former_instance", "annotations"),
        ("mask_former_semantic", "sem_seg_file_name"),
    ],
)
def test_images_without_labels(cfg, mapper: str, key: str) -> None:
    cfg.INPUT.DATASET_MAPPER_NAME = mapper
    with pytest.raises(UserError, match=rf"image a\.jpg has no labels \({key}\), which class"):
        find_classes(cfg, [{"file_name": "a.jpg"}])
