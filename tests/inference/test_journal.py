from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ddep.errors import UserError
from ddep.inference.journal import NAME, Journal

SETTINGS = {"save": ["semantic"]}


def resumed(folder: Path) -> list[str]:
    journal = Journal(folder, SETTINGS, resume=True)
    journal.close(remove=False)
    return list(journal.done)


def test_what_is_done_stays_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, SETTINGS, resume=False)
    journal.add({"name": "a"})
    journal.close(remove=False)

    def full(self: Journal, content: dict) -> None:
        raise UserError("No space left on device") from OSError(errno.ENOSPC, "")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "_write", full)
        journal = Journal(tmp_path, SETTINGS, resume=True)
        with pytest.raises(UserError, match="No space"):
            journal.add({"name": "b"})
        journal.close(remove=False)
    assert resumed(tmp_path) == ["a"]


def test_a_damaged_line_and_what_follows_do_not_count(tmp_path: Path) -> None:
    journal = Journal(tmp_path, SETTINGS, resume=False)
    for name in "abc":
        journal.add({"name": name})
    journal.close(remove=False)
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes().replace(b'{"name": "b"}', b"\xff\x00"))
    assert resumed(tmp_path) == ["a"]
    assert len(path.read_bytes().splitlines()) == 2
