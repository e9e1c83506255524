"""Pairing images with labels, with and without a list of names."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ddep.data.datasets.semantic import load_semantic
from ddep.errors import UserError
from tests.data.datasets.imitation_trees import save


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Images a, b and c, and labels b, c and d."""
    for name in "abc":
        save(tmp_path / "images" / f"{name}.png", np.zeros((4, 4, 3), dtype=np.uint8))
    for name in "bcd":
        save(tmp_path / "labels" / f"{name}.png", np.zeros((4, 4), dtype=np.uint8))
    return tmp_path / "images", tmp_path / "labels"


def names(records: list[dict[str, str]]) -> list[str]:
    assert all(Path(r["file_name"]).name == Path(r["sem_seg_file_name"]).name for r in records)
    return [Path(record["file_name"]).stem for record in records]


def test_a_list_says_which_images_are_used(folders: tuple[Path, Path], tmp_path: Path) -> None:
    listed = tmp_path / "names.txt"
    listed.write_text("c\n\nb \n")
    records = load_semantic(*folders, image_extension="png", names_file=listed)
    assert names(records) == ["b", "c"]
    listed.write_text("b\n")
    assert names(load_semantic(*folders, image_extension="png", names_file=listed)) == ["b"]


@pytest.mark.parametrize(
    ("name", "missing"), [("a", "labels/a.png"), ("d", "images/d.png"), ("e", "images/e.png")]
)
def test_what_is_listed_must_exist(
    folders: tuple[Path, Path], tmp_path: Path, name: str, missing: str
) -> None:
    listed = tmp_path / "names.txt"
    listed.write_text(f"b\n{name}\n")
    with pytest.raises(UserError) as caught:
        load_semantic(*folders, image_extension="png", names_file=listed)
    expected = f"{tmp_path / missing} does not exist, but {listed} lists {name}; prepare"
    assert str(caught.value).startswith(expected)


def test_a_list_that_is_missing_empty_or_no_text(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    listed = tmp_path / "names.txt"

    def message() -> str:
        with pytest.raises(UserError) as caught:
            load_semantic(*folders, image_extension="png", names_file=listed)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert message().startswith(f"{listed} cannot be read (No such file or directory); prepare")
    listed.write_text("\n")
    assert message() == f"{listed} lists no images; prepare the data set again"
    listed.write_bytes(b"\xff\xfe")
    assert message().startswith(f"{listed} cannot be read ('utf-8' codec")


def test_files_without_a_partner_may_be_left_out(
    folders: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UserError, match=r"a\.png has no file of that name in .*labels; each image"):
        load_semantic(*folders, image_extension="png")
    caplog.clear()
    records = load_semantic(*folders, image_extension="png", leave_out_unpaired=True)
    assert names(records) == ["b", "c"]
    lines = [r for r in caplog.records if r.name == "ddep.data.datasets.semantic"]
    assert [line.levelno for line in lines] == [logging.WARNING]
    assert "a.png has no file of that name in" in lines[0].getMessage()
    assert "2 such files are left out" in lines[0].getMessage()


def test_nothing_is_left_when_no_file_has_a_partner(folders: tuple[Path, Path]) -> None:
    for name in "bc":
        (folders[0] / f"{name}.png").unlink()
    with pytest.raises(UserError, match=r"a\.png has no file of that name"):
        load_semantic(*folders, image_extension="png", leave_out_unpaired=True)
