"""datasets/prepare.py, as a user runs it."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddep.data.datasets import declaration
from tests.data.datasets.imitation_photographs import write_pascal_context
from tests.data.datasets.imitation_streets import write_gta5, write_synthia
from tests.data.datasets.imitation_trees import (
    write_ade20k_full,
    write_cityscapes,
    write_mapillary_vistas,
)

PREPARE = Path(__file__).parents[2] / "datasets" / "prepare.py"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Run it in this process; returns what it printed. Data go below ``tmp_path``."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))

    def run_script(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [str(PREPARE), *map(str, arguments)])
        runpy.run_path(str(PREPARE), run_name="__main__")
        return capsys.readouterr().out

    return run_script


def save(path: Path, shape: tuple[int, ...], value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, value, dtype=np.uint8)).save(path)


def test_without_a_name_the_names_are_listed(run, monkeypatch: pytest.MonkeyPatch) -> None:
    # Other tests in this process may have imported an example's data set.
    own = {
        name: declared
        for name, declared in declaration._DECLARATIONS.items()
        if declared.register.__module__.startswith("ddep.")
    }
    monkeypatch.setattr(declaration, "_DECLARATIONS", own)
    lines = run().splitlines()
    assert lines[0] == "usage: python datasets/prepare.py NAME [ARGUMENTS]"
    listed = {line.split()[0]: line for line in lines if line.startswith("  ")}
    assert list(listed) == [
        *("ade20k", "ade20k_full", "camvid", "cityscapes", "coco", "gta5", "mapillary_vistas"),
        "moving-shapes",
        *("pascal_context", "penn_fudan", "shapes", "synthia"),
    ]
    assert listed["gta5"].endswith("labels of Cityscapes' 19 classes")
    assert run("--help").splitlines() == lines


def test_each_data_set_has_its_own_help(run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("coco", "--help")
    assert caught.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "usage: datasets/prepare.py coco [-h] [--workers N] [FOLDER]" in printed
    assert "with annotations/ and panoptic_{train,val}2017/;" in printed


def test_generate_shapes(run, tmp_path: Path) -> None:
    printed = run(
        "shapes",
        *["--train", "2", "--val", "1", "--unlabelled", "3", "--size", "32", "--seed", "5"],
    )
    assert f"written to {tmp_path / 'shapes'}:" in printed
    assert "train: 2 images, " in printed
    assert "unlabelled: 3 images" in printed
    assert len(list((tmp_path / "shapes" / "unlabelled").iterdir())) == 3
    run("shapes", *["--train", "1", "--val", "1", "--unlabelled", "2", "--shift", "fog"])
    assert len(list((tmp_path / "shapes" / "fog" / "unlabelled").iterdir())) == 2


def test_prepare_camvid(run, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        save(tmp_path / "source" / split / "a.png", (10, 12, 3))
        save(tmp_path / "source" / f"{split}annot" / "a.png", (10, 12), value=8)
    printed = run("camvid", tmp_path / "source")
    assert "val: 1 images, 1 car, 0 pedestrian, 0 bicyclist, 0 specks below 20 pixels" in printed
    assert "instances are connected components: touching objects of a class count as one" in printed
    run("camvid", tmp_path / "source", tmp_path / "elsewhere")
    listed = json.loads((tmp_path / "elsewhere" / "panoptic_test.json").read_text())
    assert listed["annotations"][0]["segments_info"][0]["area"] == 120


def test_prepare_penn_fudan(run, tmp_path: Path) -> None:
    for index in range(5):
        save(tmp_path / "source" / "PNGImages" / f"{index}.png", (10, 12, 3))
        save(tmp_path / "source" / "PedMasks" / f"{index}_mask.png", (10, 12), value=1)
    printed = run("penn_fudan", tmp_path / "source")
    assert "train: 4 images, 4 people" in printed
    assert "val: 1 images, 1 people" in printed


def test_prepare_ade20k(run, tmp_path: Path) -> None:
    folder = tmp_path / "ADEChallengeData2016"
    for split in ("training", "validation"):
        save(folder / "images" / split / "a.jpg", (10, 12, 3))
        save(folder / "annotations" / split / "a.png", (10, 12), value=150)
    printed = run("ade20k", "--workers", 1)
    assert "val: 1 semantic labels\n" in printed
    assert "no panoptic and instance labels, because there is no annotations_instance/" in printed
    label = np.asarray(Image.open(folder / "annotations_detectron2" / "training" / "a.png"))
    assert np.unique(label).tolist() == [149]

    for split in ("training", "validation"):
        save(folder / "annotations_instance" / split / "a.png", (10, 12, 3), value=1)
    printed = run("ade20k", "--workers", 1)
    assert "train: 1 semantic labels, 1 panoptic labels, 1 instances" in printed
    assert "no panoptic" not in printed
    assert (folder / "ade20k_panoptic_val" / "a.png").exists()
    listed = json.loads((folder / "ade20k_instance_train.json").read_text())
    assert listed["annotations"][0]["category_id"] == 7


def test_prepare_ade20k_full(run, tmp_path: Path) -> None:
    write_ade20k_full(tmp_path)
    printed = run("ade20k_full", "--workers", 1)
    assert f"written to {tmp_path / 'ADE20K_2021_17_01'}:" in printed
    assert "train: 2 images" in printed


def test_prepare_cityscapes(run, tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    printed = run("cityscapes", "--workers", 1)
    assert "val: 2 label images, 2 instances" in printed


def test_prepare_pascal_context(run, tmp_path: Path) -> None:
    write_pascal_context(tmp_path)
    printed = run("pascal_context", "--workers", 1)
    assert f"written to {tmp_path / 'VOCdevkit' / 'VOC2010'}:" in printed
    assert "train: 1 images\n  val: 2 images\n" in printed


def test_prepare_gta5(run, tmp_path: Path) -> None:
    folder = write_gta5(tmp_path)
    printed = run("gta5", "--workers", 1)
    assert "all: 4 images, 1 left out for their label's size" in printed
    assert printed.endswith("left out, their labels have other sizes: 00005\n")
    for kind in ("images", "labels"):
        (folder / kind / "00005.png").unlink()
    (folder / "split.mat").unlink()
    printed = run("gta5", "--workers", 1)
    assert printed.endswith("no splits but all, because there is no split.mat\n")
    assert "other sizes" not in printed


def test_prepare_synthia(run, tmp_path: Path) -> None:
    write_synthia(tmp_path)
    assert "all: 2 images" in run("synthia", "--workers", 1)


def test_prepare_mapillary_vistas(run, tmp_path: Path) -> None:
    write_mapillary_vistas(tmp_path)
    printed = run("mapillary_vistas", "--workers", 1)
    assert "train: 1 labels\n  val: 2 labels\n" in printed


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("camvid", ["nowhere"], "error: nowhere/train is not a folder"),
        ("penn_fudan", ["nowhere"], "error: nowhere/PNGImages is not a folder"),
        ("ade20k", ["nowhere"], "error: nowhere/images/training is not a folder"),
        ("ade20k_full", ["nowhere"], "error: nowhere/images: no images of train in it"),
        ("cityscapes", ["nowhere"], "error: nowhere/gtFine: no {train,val}/*/*_gtFine"),
        ("coco", ["nowhere"], "error: nowhere/annotations/panoptic_train2017.json"),
        ("gta5", ["nowhere"], "error: nowhere/images is not a folder; expected GTA5"),
        ("synthia", ["nowhere"], "error: nowhere/RGB is not a folder; expected SYNT"),
        ("pascal_context", ["nowhere"], "error: nowhere: no labels of Pascal Context"),
        ("mapillary_vistas", ["nowhere"], "error: nowhere: neither training/ nor"),
        ("pen-fudan", [], "error: unknown data set 'pen-fudan'; did you mean penn_fudan?"),
        ("xyz", [], "error: unknown data set 'xyz'; expected one of ade20k, ade20k_full, bdd100k,"),
        ("bdd100k", [], "error: bdd100k needs no preparation; unpack BDD100K's 10K images and"),
        ("coco", ["--workers", "0"], "error: --workers is 0; expected at least 1"),
        ("shapes", ["--size", "8"], "error: --size is 8; expected at least 32"),
        ("shapes", ["--shift", "day"], "error: --shift is day; expected one of none, night, fog,"),
    ],
)
def test_mistakes_end_with_one_line(run, name: str, arguments: list[str], expected: str) -> None:
    with pytest.raises(SystemExit) as caught:
        run(name, *arguments)
    assert str(caught.value.code).startswith(expected)
    assert "\n" not in str(caught.value.code)


def test_a_target_that_cannot_be_written_ends_with_one_line(run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as caught:
        run("shapes", tmp_path / "file")
    message = str(caught.value.code)
    assert message.startswith("error: [Errno ") and message.endswith("/file/panoptic_train.json'")
