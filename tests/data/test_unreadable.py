from __future__ import annotations

import logging

import pytest

from ddep.data.unreadable import UnreadableImages
from ddep.errors import UserError


def test_each_file_is_logged_and_counted_once(caplog):
    images = UnreadableImages(2)
    with caplog.at_level(logging.WARNING):
        for name in ("a", "b", "a", "b"):
            images.add({name: f"image {name} cannot be read: it is broken"})
        images.add({})
    messages = [r.getMessage() for r in caplog.records if r.name == "ddep.data.unreadable"]
    assert messages == [
        f"skipped: image {name} cannot be read: it is broken (unreadable so far: {number}; "
        "INPUT.MAX_UNREADABLE: 2)"
        for number, name in ((1, "a"), (2, "b"))
    ]
    assert list(images.found) == ["a", "b"]


def test_the_limit_holds_over_all():
    found = {f"broken{i}": f"broken{i} is bad" for i in range(4)}
    UnreadableImages(4).add(found)
    with pytest.raises(UserError) as error:
        UnreadableImages(3).add(found)
    assert str(error.value) == (
        "4 training images cannot be read, but INPUT.MAX_UNREADABLE allows 3; "
        "the last: broken3 is bad"
    )
