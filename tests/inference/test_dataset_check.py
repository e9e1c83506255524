from __future__ import annotations

import json
import multiprocessing
import os
import re
import runpy
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ddep.data.checks import records
from tests.data.checks.trees import INSTANCES, OWN, OWN_IMAGES, PANOPTIC, SEMANTIC, Tree, cut
from tests.data.videos import truncate, write_video
from tests.engine.tiny_runs import write_images

ROOT = Path(__file__).parents[2]


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the tool in this process and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["check-dataset.py", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "tools" / "check-dataset.py"), run_name="__main__")
    if isinstance(end.value.code, str):  # what Python itself does with it
        print(end.value.code, file=sys.stderr)
        return 1
    return end.value.code


def test_a_data_set_that_is_fine(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    tree = Tree(tmp_path / "data")
    assert run(monkeypatch, PANOPTIC, "--workers", 2) == 0
    tree.unregister()
    output = tmp_path / "output" / "check" / PANOPTIC
    report = json.loads((output / "report.json").read_text())
    assert report["problem_counts"] == report["problems"] == {}
    assert report["images"] == 4 and report["crowds"] == 1
    assert [entry["pixels"] for entry in report["classes"]] == [720, 720, 0]
    assert [entry["objects"] for entry in report["classes"]] == [4, 3, 0]
    assert report["pixel_mean_rgb"] == [10, 20, 31.5]
    assert report["pixel_std_rgb"] == pytest.approx([0, 0, np.std([30, 31, 32, 33])], abs=1e-6)
    assert Image.open(output / "contact_sheet.png").width == 4 * 488
    text = capsys.readouterr().out
    assert "no problems" in text and f"report and contact sheet: output/check/{PANOPTIC}" in text


def test_a_folder_of_images_with_two_that_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    images = write_images(tmp_path / "images", 5)
    cut(images / "1.png")
    (images / "3.jpg").write_text("no image")
    output = tmp_path / "out"
    assert run(monkeypatch, f"images:{images}", "--output", output, "--workers", 1) == 1
    report = json.loads((output / "report.json").read_text())
    assert report["problem_counts"] == {"unreadable": 2}
    files = [problem["file"] for problem in report["problems"]["unreadable"]]
    assert files == [str(images / "1.png"), str(images / "3.jpg")]
    assert report["images"] == 6 and report["classes"] == []
    assert report["images_without_labels"] is None
    assert "unreadable (2)" in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["images", "classes"])
def test_damaged_videos_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    images = write_images(tmp_path / "all" / "cat", 1)
    write_video(images / "good.mp4", frames=12)
    truncate(write_video(images / "cut.avi", frames=30, codec="MJPG"), 0.5)
    (images / "no.mp4").write_bytes(b"no video")
    output = tmp_path / "out"
    name = f"{prefix}:{tmp_path / 'all'}@5fps"
    assert run(monkeypatch, name, "--output", output, "--workers", 1) == 1
    report = json.loads((output / "report.json").read_text())
    found = {p["file"]: p["message"] for p in report["problems"]["unreadable"]}
    assert list(found) == [str(images / "cut.avi"), str(images / "no.mp4")]
    assert "ends after" in found[str(images / "cut.avi")]
    assert report["images"] == 1 + 6 + 5  # an image, the frames of the whole video and of the other
    assert report["problem_counts"] == {"unreadable": 2}
    assert report["widths"] == [36, 48]


def test_folders_of_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write_images(tmp_path / "images" / "cat", 2)
    write_images(tmp_path / "images" / "dog", 3)
    cut(tmp_path / "images" / "dog" / "1.png")
    name, output = f"classes:{tmp_path / 'images'}", tmp_path / "out"
    assert run(monkeypatch, name, "--output", output, "--workers", 1) == 1
    report = json.loads((output / "report.json").read_text())
    assert report["problem_counts"] == {"unreadable": 1}
    found = {entry["name"]: entry["images"] for entry in report["classes"]}
    assert found == {"cat": 2, "dog": 3}
    assert report["images_without_labels"] == 0
    assert Image.open(output / "contact_sheet.png").width == 4 * 488
    text = capsys.readouterr().out
    assert "pixels |" not in text
    assert re.search(r"\| dog +\| +3 \|", text)
    write_images(tmp_path / "images", 1)
    assert run(monkeypatch, name, "--output", output) == 1
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert "images/0.png is beside the folders of the classes; expected each image" in line


def test_the_sets_of_a_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """All that it names, or one of those that it describes."""
    tree = Tree(tmp_path / "data")
    tree.semantic("b").unlink()
    semantic, instances = OWN[SEMANTIC], OWN[INSTANCES]
    datasets = {"CUSTOM": tree.custom(), "TRAIN": [semantic], "TEST": [semantic, instances]}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"DATASETS": datasets}))
    words = ["--config-file", config, "--workers", 1, "--output", tmp_path / "out"]
    assert run(monkeypatch, *words) == 1
    reports = {
        path.parent.name: json.loads(path.read_text())["problem_counts"]
        for path in (tmp_path / "out").glob("*/report.json")
    }
    assert reports == {semantic: {"unpaired": 1, "annotations": 1}, instances: {}}
    assert "4 images" in capsys.readouterr().out

    assert run(monkeypatch, OWN_IMAGES, *words) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["images"] == 4
    config.write_text("DATASETS:\n  TRAIN: []\n")
    assert run(monkeypatch, *words) == run(monkeypatch, "--output", tmp_path / "none") == 1
    assert capsys.readouterr().err.count("error: no data set to check; give a NAME") == 2
    tree.unregister()


@pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork", reason="workers would not see the patch"
)
def test_a_file_that_kills_its_process_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: str) -> np.ndarray:
        if path.endswith("/2.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.zeros((3, 4, 3), dtype=np.uint8)

    images = write_images(tmp_path / "images", 4)
    monkeypatch.setattr(records, "read_image", read)
    assert run(monkeypatch, f"images:{images}", "--output", tmp_path, "--workers", 2) == 1
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["problem_counts"] == {"crash": 1} and report["images"] == 4
    (problem,) = report["problems"]["crash"]
    assert problem["file"] == str(images / "2.png") and problem["file"] in problem["message"]
    assert report["widths"] == [4, 4]


def test_without_a_good_image_there_is_no_contact_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "images", 1)
    output = tmp_path / "out"
    assert run(monkeypatch, f"images:{images}", "--output", output) == 0
    assert (output / "contact_sheet.png").exists()
    cut(images / "0.png")
    assert run(monkeypatch, f"images:{images}", "--output", output) == 1
    assert sorted(path.name for path in output.iterdir()) == ["report.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["camvid_panoptic_trian"], "unknown data set .*did you mean camvid_panoptic_train"),
        (["camvid_panoptic_train"], "data set camvid_panoptic_train: .* does not exist; make it"),
        (["images:nowhere"], "data set images:nowhere: there is no such folder"),
        (["images:tests", "--workers", 0], "--workers is 0; expected at least 1"),
        (["qqq"], "unknown data set .*; datasets/README.md lists them; a folder of images"),
        (["tests"], r"unknown data set 'tests'; did you mean images:tests\?$"),
    ],
)
def test_mistakes_are_named(
    words: list,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(ROOT)
    output = tmp_path / "out"
    assert run(monkeypatch, *words, "--output", output) == 1
    assert re.match(f"error: {message}", capsys.readouterr().err.rstrip())
    assert not output.exists()


def test_an_output_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    images = write_images(tmp_path / "images", 1)
    assert run(monkeypatch, f"images:{images}", "--output", images / "0.png") == 1
    found = capsys.readouterr().err
    assert re.match("error: --output .*0.png/report.json cannot be written", found)
