from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from detectron2.data import DatasetFromList

from ddep.data.image_reader import UnreadableImageError
from ddep.data.samplers import ClassImages
from ddep.data.samples import SampleKey, TrainingSamples
from ddep.errors import UserError


def fake_mapper(record: dict) -> dict:
    if "broken" in record["file_name"]:
        raise UnreadableImageError(f"image {record['file_name']} cannot be read: it is broken")
    drawn = (random.random(), np.random.rand(), torch.rand(()).item())
    return {"file_name": record["file_name"], "drawn": drawn}


def make(names: str, max_unreadable: int = 0) -> TrainingSamples:
    records = [{"file_name": name} for name in names.split()]
    return TrainingSamples([records], fake_mapper, max_unreadable)


def test_a_readable_image_is_returned_itself():
    samples = make("a b c")
    assert len(samples) == 3
    for index, name in enumerate("abc"):
        key = SampleKey(seed=0, position=7, index=index)
        sample = samples[key]
        assert sample.key == key and sample.unreadable == {}
        assert sample.content["file_name"] == name


def test_random_numbers_depend_only_on_seed_and_position():
    samples = make("a b")
    first = samples[SampleKey(3, 5, 0)].content["drawn"]
    samples[SampleKey(3, 6, 0)]
    assert samples[SampleKey(3, 5, 1)].content["drawn"] == first
    others = [samples[SampleKey(*key, 0)].content["drawn"] for key in ((3, 6), (4, 5), (5, 3))]
    for kind in range(3):
        assert len({drawn[kind] for drawn in (first, *others)}) == 4


def test_sets_are_joined_and_only_lists_are_copied():
    class Lazy:
        asked: list[int] = []

        def __len__(self) -> int:
            return 14_000_000

        def __getitem__(self, index: int) -> dict:
            self.asked.append(index)
            return {"file_name": f"lazy{index}"}

    samples = TrainingSamples([[{"file_name": "a"}], Lazy(), [{"file_name": "b"}]], fake_mapper, 0)
    assert len(samples) == 14_000_002
    names = [
        samples[SampleKey(0, 0, i)].content["file_name"] for i in (0, 1, 14_000_000, 14_000_001)
    ]
    assert names == ["a", "lazy0", "lazy13999999", "b"] and Lazy.asked == [0, 13_999_999]
    kinds = [type(records) for records in samples.records.datasets]
    assert kinds == [DatasetFromList, Lazy, DatasetFromList]


def test_indices_beyond_the_images_name_an_image_and_a_class():
    pairs = ClassImages(np.array([2, 0, 1]), np.array([5, 4, 3]))
    records = [{"file_name": name} for name in ("a", "broken", "c")]

    def mapper(record: dict) -> dict:
        return {**fake_mapper(record), "class": record.get("class_to_show")}

    samples = TrainingSamples([records], mapper, 1, pairs)
    found = [samples[SampleKey(0, 0, index)] for index in (0, 2, 3, 4, 5)]
    shown = [(sample.content["file_name"], sample.content["class"]) for sample in found]
    assert shown[:4] == [("a", None), ("c", None), ("c", 5), ("a", 4)]
    # What replaces an image need not show the class.
    assert shown[4][0] in "ac" and shown[4][1] is None
    assert list(found[4].unreadable) == ["broken"]
    assert records[0] == {"file_name": "a"}


def test_another_image_replaces_an_unreadable_one():
    samples = make("broken1 a b c broken2", 2)
    drawn = [samples[SampleKey(0, position, 0)] for position in range(100)]
    assert {sample.content["file_name"] for sample in drawn} == {"a", "b", "c"}
    for sample in drawn:
        assert sample.key.index == 0 and samples[sample.key] == sample
        assert sample.unreadable.pop("broken1") == "image broken1 cannot be read: it is broken"
        assert set(sample.unreadable) <= {"broken2"}


def test_no_image_is_readable():
    with pytest.raises(UserError, match="none of the 2 training images can be read; the last: im"):
        make("broken1 broken2", 9)[SampleKey(0, 0, 1)]


def test_one_sample_stops_at_the_limit():
    with pytest.raises(UserError, match="2 training images .* INPUT.MAX_UNREADABLE allows 1;"):
        for position in range(99):
            make("broken1 broken2 broken3 a", 1)[SampleKey(0, position, 0)]
    with pytest.raises(UserError, match="1 training images .* allows 0; the last: image broken1"):
        make("broken1 a", 0)[SampleKey(0, 0, 0)]
