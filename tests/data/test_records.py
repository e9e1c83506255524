from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.data.datasets.catalog import register
from ddep.data.datasets.image_folder import register_image_folder
from ddep.data.image_index import ImageIndex
from ddep.data.records import Record, load_records, load_training_sets
from ddep.errors import UserError

NAME = "records_of_a_test"


@pytest.fixture
def provide() -> Iterator[Callable[[Sequence[Record]], None]]:
    """Registers records of two thing classes under ``NAME``."""
    yield lambda records: register(NAME, lambda: records, thing_classes=["a", "b"])
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


def instances(*classes: int, crowd: int = 0) -> list[dict]:
    return [{"category_id": number, "iscrowd": crowd} for number in classes]


def test_folders_of_images_stay_in_their_index(tmp_path: Path, config: Callable[..., CfgNode]):
    names = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.jpg").touch()
        names.append(f"images:{tmp_path / folder}")
        register_image_folder(names[-1])
    cfg = config("DATASETS.TRAIN", names, "INPUT.DATASET_MAPPER_NAME", "ddep_denoising")
    sets = load_training_sets(cfg)
    assert [type(records) for records in sets] == [ImageIndex, ImageIndex]
    assert [record["image_id"] for records in sets for record in records] == ["one.jpg", "two.jpg"]


def test_images_without_objects(provide) -> None:
    shown, crowd, nothing = (
        {"file_name": name, "annotations": annotations}
        for name, annotations in (
            ("shown", instances(0, 1)),
            ("crowd", instances(1, crowd=1)),
            ("nothing", []),
        )
    )
    provide([crowd, shown, nothing])
    assert load_records("DATASETS.TRAIN", [NAME], filter_empty=True) == [[shown]]
    assert load_records("DATASETS.TEST", [NAME], filter_empty=False) == [[crowd, shown, nothing]]
    provide([nothing, crowd])
    with pytest.raises(UserError, match=f"DATASETS.TRAIN: data set {NAME} .*shows an object"):
        load_records("DATASETS.TRAIN", [NAME], filter_empty=True)


def test_videos_without_objects(provide, caplog: pytest.LogCaptureFixture) -> None:
    """A track counts once, whatever the number of its frames; crowds are no objects."""

    def track(number: int, category: int, iscrowd: int = 0) -> dict:
        return {"id": number, "category_id": category, "iscrowd": iscrowd}

    frames = {
        "shown": [[], [track(3, 0, 1), track(4, 1)], [track(4, 1), track(7, 1)]],
        "crowd": [[track(3, 0, 1)], [track(3, 0, 1)]],
        "nothing": [[], []],
    }
    shown, crowd, nothing = (
        {"file_name": name, "file_names": [name] * len(found), "annotations": found}
        for name, found in frames.items()
    )
    provide([nothing, shown, crowd])
    with caplog.at_level("INFO"):
        assert load_records("DATASETS.TRAIN", [NAME], filter_empty=True) == [[shown]]
    assert re.search(r"\| +a +\| 0 +\| +b +\| 2 +\|", caplog.text)
    provide([nothing, crowd])
    with pytest.raises(UserError, match="shows an object"):
        load_records("DATASETS.TRAIN", [NAME], filter_empty=True)


def test_mistakes(provide) -> None:
    provide([])
    for names, expected in (
        ([], "DATASETS.TEST is empty"),
        (["nowhere"], "DATASETS.TEST has 'nowhere', which is not a registered data set"),
        ([NAME], f"DATASETS.TEST: data set {NAME} cannot be loaded: it has no images"),
    ):
        with pytest.raises(UserError, match=expected) as caught:
            load_records("DATASETS.TEST", names, filter_empty=False)
        assert "\n" not in str(caught.value)
