"""What is wrong with a sequence is said in one line, with the file and the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ddep.data.datasets.mot17 import read_boxes
from ddep.data.datasets.mot_files import read_sequence
from ddep.data.datasets.mots20 import read_masks
from ddep.errors import UserError
from tests.data.datasets.imitation_sequences import write_sequence


def test_frames_and_size(tmp_path: Path) -> None:
    write_sequence(tmp_path / "A", 3, None)
    sequence = read_sequence(tmp_path / "A")
    assert sequence.frames == [str(tmp_path / f"A/img1/00000{i}.jpg") for i in (1, 2, 3)]
    assert (sequence.height, sequence.width) == (30, 40)


def remove(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def replace(old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "seqinfo.ini"
        path.write_text(path.read_text().replace(old, new))

    return change


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (remove("seqinfo.ini"), r"A/seqinfo\.ini cannot be read: No such file"),
        (remove("img1/000002.jpg"), r"img1/000002\.jpg does not exist, but .* are 3 frames"),
        (replace("seqLength=3", "seqLength=4"), r"000004\.jpg does not exist, but .* are 4 frames"),
        (replace("seqLength=3", "seqLength=three"), r"seqinfo\.ini is broken .*'three'.*expected"),
        (replace("imWidth=40\n", ""), r"seqinfo\.ini is broken .*imwidth.*expected a section"),
        (replace("[Sequence]", "Sequence"), r"seqinfo\.ini is broken .*no section headers"),
    ],
)
def test_broken_folders(damage: Callable[[Path], None], expected: str, tmp_path: Path) -> None:
    write_sequence(tmp_path / "A", 3, None)
    damage(tmp_path / "A")
    with pytest.raises(UserError, match=expected) as caught:
        read_sequence(tmp_path / "A")
    assert "\n" not in str(caught.value)


GOOD_BOX, GOOD_MASK = "1,7,5,6,10,12,1,1,0.5", "1 2001 2 30 40 f1"


@pytest.mark.parametrize(
    ("read", "line", "expected"),
    [
        (read_boxes, "1,7,5,6,10", "line 2 has 5 columns .*expected at least 8"),
        (read_boxes, "x,7,5,6,10,12,1,1,1", "line 2 has 'x 7'; expected whole numbers"),
        (read_boxes, "2,7,5,six,10,12,1,1,1", "line 2 has '5 six 10 12'; expected numbers"),
        (read_boxes, "2,7,5,6,10,12,1,one,1", "line 2 has '1 one'; expected whole numbers"),
        (read_boxes, "4,7,5,6,10,12,1,1,1", "line 2 is of frame 4; expected 1 to 3"),
        (read_boxes, "0,7,5,6,10,12,1,1,1", "line 2 is of frame 0; expected 1 to 3"),
        (read_boxes, "2,7,5,6,10,12,1,14,1", "line 2 is of class 14; expected 1 to 13"),
        (read_boxes, GOOD_BOX, "line 2 has track 7 a second time in frame 1"),
        (read_masks, "1 2001 2 30 40", "line 2 has 5 columns"),
        (read_masks, "1,2002,2,30,40,f1", "line 2 has 1 columns"),
        (read_masks, "1 2002 3 30 40 f1", "line 2 is of class 3; expected 1"),
        (read_masks, "1 2002 2 40 30 f1", "line 2 has a mask of 30x40; expected 40x30"),
        (read_masks, "9 2002 2 30 40 f1", "line 2 is of frame 9; expected 1 to 3"),
        (read_masks, "1 2002 2 30 40 xyz!!!", "line 2 has run lengths 'xyz!!!' of more than 40x30"),
        (read_masks, GOOD_MASK, "line 2 has track 2001 a second time in frame 1"),
    ],
)
def test_broken_lines(read: Callable, line: str, expected: str, tmp_path: Path) -> None:
    good = GOOD_BOX if read is read_boxes else GOOD_MASK
    write_sequence(tmp_path / "A", 3, [good, line])
    with pytest.raises(UserError, match=rf"A/gt/gt\.txt, {expected}") as caught:
        read(read_sequence(tmp_path / "A"))
    assert "\n" not in str(caught.value)


def test_missing_labels(tmp_path: Path) -> None:
    write_sequence(tmp_path / "A", 3, None)
    with pytest.raises(UserError, match=r"A/gt/gt\.txt cannot be read: No such file"):
        read_boxes(read_sequence(tmp_path / "A"))
    write_sequence(tmp_path / "B", 3, [GOOD_BOX])
    (tmp_path / "B/gt/gt.txt").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(UserError, match="it is no text file"):
        read_boxes(read_sequence(tmp_path / "B"))
