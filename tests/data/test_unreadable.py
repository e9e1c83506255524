from __future__ import annotations

import logging

import pytest

from ddep.data.image_reader import UnreadableImageError
from ddep.data.unreadable import ReadableSamples, TrainLoader
from ddep.errors import UserError


def fake_mapper(record: dict) -> dict:
    if "broken" in record["file_name"]:
        raise UnreadableImageError(f"image {record['file_name']} cannot be read: it is broken")
    return {"file_name": record["file_name"]}


def samples(names: str, max_unreadable: int) -> ReadableSamples:
    return ReadableSamples([{"file_name": n} for n in names.split()], fake_mapper, max_unreadable)


def test_a_readable_image_is_what_was_asked_for():
    dataset = samples("a b c", 0)
    assert len(dataset) == 3
    assert [dataset[i] for i in range(3)] == [{"file_name": n} for n in "abc"]


def test_another_image_takes_the_place():
    dataset = samples("broken1 a b c broken2", 2)
    drawn = [dataset[0] for _ in range(100)]
    assert {sample["file_name"] for sample in drawn} == {"a", "b", "c"}
    for sample in drawn:
        assert sample["unreadable"].pop("broken1") == "image broken1 cannot be read: it is broken"
        assert set(sample["unreadable"]) <= {"broken2"}


def test_no_image_is_readable():
    with pytest.raises(UserError, match="none of the 2 training images can be read; the last: im"):
        samples("broken1 broken2", 9)[1]


def test_one_sample_stops_at_the_limit():
    with pytest.raises(UserError, match="2 training images .* INPUT.MAX_UNREADABLE allows 1;"):
        for _ in range(99):
            samples("broken1 broken2 broken3 a", 1)[0]
    with pytest.raises(UserError, match="1 training images .* allows 0; the last: image broken1"):
        samples("broken1 a", 0)[0]


def test_each_file_is_logged_and_counted_once(caplog):
    dataset = samples("a broken1 broken2 b", 2)
    loader = TrainLoader([[dataset[i], dataset[i]] for i in (0, 1, 1, 2, 3)], 2)
    with caplog.at_level(logging.WARNING):
        batches = list(loader)
    assert [len(batch) for batch in batches] == [2] * 5
    assert all(set(sample) == {"file_name"} for batch in batches for sample in batch)
    messages = [r.getMessage() for r in caplog.records if r.name == "ddep.data.unreadable"]
    assert len(messages) == 2 and set(loader.unreadable) == {"broken1", "broken2"}
    first, second = sorted(messages)
    assert first.startswith("skipped: image broken1 cannot be read: it is broken (unreadable")
    assert "broken2" in second
    assert {m[m.index("so far") :] for m in (first, second)} == {
        "so far: 1; INPUT.MAX_UNREADABLE: 2)",
        "so far: 2; INPUT.MAX_UNREADABLE: 2)",
    }


def test_the_limit_holds_over_all_samples():
    def batch() -> list[dict]:
        names = [f"broken{i}" for i in range(4)]
        return [{"file_name": "a", "unreadable": {name: f"{name} is bad"}} for name in names]

    assert len(list(TrainLoader([batch()], 4))) == 1
    with pytest.raises(UserError) as error:
        list(TrainLoader([batch()], 3))
    assert str(error.value) == (
        "4 training images cannot be read, but INPUT.MAX_UNREADABLE allows 3; "
        "the last: broken3 is bad"
    )
