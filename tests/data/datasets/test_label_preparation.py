from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddep.data.datasets.label_preparation import LabelJob, read_matlab, write_labels, write_names
from ddep.data.image_reader import read_labels
from ddep.errors import UserError
from tests.data.datasets.imitation_trees import save

RAW = np.arange(12, dtype=np.uint8).reshape(3, 4)


def halve(path: Path) -> np.ndarray:
    return (read_labels(str(path)) // 2).astype(np.uint8)


@pytest.fixture
def job(tmp_path: Path) -> LabelJob:
    """An image of three rows and four columns."""
    image = save(tmp_path / "image.png", np.zeros((3, 4, 3), dtype=np.uint8))
    return LabelJob(image, save(tmp_path / "label.png", RAW), tmp_path / "new" / "label.png")


def test_labels_are_converted(job: LabelJob) -> None:
    assert write_labels([job], halve, workers=1, progress="test") == []
    np.testing.assert_array_equal(read_labels(str(job.target)), RAW // 2)
    assert [path.name for path in job.target.parent.iterdir()] == ["label.png"]


def test_a_label_of_another_size(job: LabelJob) -> None:
    write_labels([job], halve, workers=1, progress="test")
    save(job.source, RAW.T)
    with pytest.raises(UserError) as caught:
        write_labels([job], halve, workers=1, progress="test")
    assert str(caught.value) == (
        f"{job.source}: 3x4 pixels, but its image {job.image} has 4x3; a label must have its "
        "image's size"
    )
    assert not job.target.exists()
    left_out = write_labels([job], halve, workers=1, progress="test", leave_out_mismatched=True)
    assert left_out == ["image"]


def test_images_are_taken_upright(job: LabelJob, tmp_path: Path) -> None:
    """Training also reads a photograph upright if its EXIF data say that it is on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = tmp_path / "photograph.jpg"
    Image.fromarray(np.zeros((4, 3, 3), dtype=np.uint8)).save(image, exif=exif)
    jobs = [LabelJob(image, job.source, job.target)]
    assert write_labels(jobs, halve, workers=1, progress="test") == []


def test_names_are_sorted(tmp_path: Path) -> None:
    write_names(tmp_path / "new" / "names.txt", ["b", "a b", "a"])
    assert (tmp_path / "new" / "names.txt").read_text() == "a\na b\nb\n"


def test_a_matlab_file_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "labels.mat"
    with pytest.raises(UserError, match=rf"{path}: not a MATLAB file with LabelMap \("):
        read_matlab(path, "LabelMap")
