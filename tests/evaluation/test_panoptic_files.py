"""Panoptic quality of files: numbers computed by hand, and files with mistakes."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddep.data.datasets.panoptic import encode_panoptic
from ddep.errors import UserError
from ddep.evaluation.panoptic_files import PanopticFiles, evaluate_panoptic_files

ROOT = Path(__file__).parents[2]
CATEGORIES = [
    {"id": 21, "name": "road", "isthing": 0},
    {"id": 45, "name": "car", "isthing": 1},
    {"id": 90, "name": "sky", "isthing": 0},
    {"id": 91, "name": "dog", "isthing": 1},
]
METRICS = ("PQ", "SQ", "RQ")
CAR = 70_001  # red, green and blue all count


def segment(number: int, category: int, iscrowd: int = 0) -> dict[str, int]:
    return {"id": number, "category_id": category, "iscrowd": iscrowd}


class Tree:
    """Ground truth and predictions of two images of 2 x 20 pixels.

    Image 1. Road: 7 of its 10 pixels are found; 2 more lie on void and do not count. Car: 8 of its
    10 pixels are found, and 2 on a crowd of cars. Another predicted car has 4 pixels on the crowd
    and 3 on the road; being mostly on the crowd, it does not count.
    Image b. All is sky, all is predicted as road.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        first = [[7] * 10 + [CAR] * 10, [0] * 5 + [9] * 15]
        predicted = [
            [1] * 7 + [2] * 3 + [3] * 8 + [0] * 2,
            [1] * 2 + [0] * 3 + [2] * 4 + [0] * 1 + [3] * 2 + [0] * 8,
        ]
        self.truth = self.write(
            "gt",
            {1: (first, [segment(7, 21), segment(CAR, 45), segment(9, 45, iscrowd=1)])},
            {"b": ([[5] * 20] * 2, [segment(5, 90)])},
        )
        self.prediction = self.write(
            "pred",
            {1: (predicted, [segment(1, 21), segment(2, 45), segment(3, 45)])},
            {"b": ([[4] * 20] * 2, [segment(4, 21)])},
        )

    def write(self, name: str, *images: dict[Any, tuple[list, list]]) -> PanopticFiles:
        (self.folder / name).mkdir()
        annotations = []
        for image_id, (ids, segments) in [item for part in images for item in part.items()]:
            self.draw(name, image_id, ids)
            annotations.append(
                {"image_id": image_id, "file_name": f"{image_id}.png", "segments_info": segments}
            )
        content = {"categories": CATEGORIES, "annotations": annotations}
        (self.folder / f"{name}.json").write_text(json.dumps(content))
        return PanopticFiles(str(self.folder / f"{name}.json"), str(self.folder / name))

    def draw(self, name: str, image_id: object, ids: list) -> None:
        path = self.folder / name / f"{image_id}.png"
        Image.fromarray(encode_panoptic(np.array(ids))).save(path)

    def edit(self, name: str, change) -> None:
        path = self.folder / f"{name}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    def evaluate(self) -> dict[str, Any]:
        return evaluate_panoptic_files(self.truth, self.prediction, workers=1).to_json()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_numbers_computed_by_hand(tree: Tree) -> None:
    found = tree.evaluate()
    road = {"PQ": 70 / 1.5, "SQ": 70, "RQ": 100 / 1.5, "iou_sum": 0.7, "TP": 1, "FP": 1, "FN": 0}
    iou = 8 / 12
    car = {"PQ": 100 * iou, "SQ": 100 * iou, "RQ": 100, "iou_sum": iou, "TP": 1, "FP": 0, "FN": 0}
    sky = {"PQ": 0, "SQ": 0, "RQ": 0, "iou_sum": 0, "TP": 0, "FP": 0, "FN": 1}
    dog = {"PQ": None, "SQ": None, "RQ": None, "iou_sum": 0, "TP": 0, "FP": 0, "FN": 0}
    for category, expected, measured in zip(
        CATEGORIES, (road, car, sky, dog), found["per_class"], strict=True
    ):
        assert measured == pytest.approx({**category, **expected})
    assert found["stuff"] == pytest.approx(
        {"PQ": 35 / 1.5, "SQ": 35, "RQ": 50 / 1.5, "categories": 2}
    )
    assert found["things"] == pytest.approx({**{k: car[k] for k in METRICS}, "categories": 1})
    averages = {k: (road[k] + car[k]) / 3 for k in METRICS}
    assert found["all"] == pytest.approx({**averages, "categories": 3})
    assert found["images"] == 2


def test_kinds_that_do_not_occur_have_no_quality(tree: Tree) -> None:
    tree.edit("gt", lambda c: [category.update(isthing=1) for category in c["categories"]])
    found = tree.evaluate()
    assert found["stuff"] == {"PQ": None, "SQ": None, "RQ": None, "categories": 0}
    assert found["all"] == found["things"]


def test_workers_add_up(tree: Tree) -> None:
    expected = evaluate_panoptic_files(tree.truth, tree.prediction, workers=1)
    assert evaluate_panoptic_files(tree.truth, tree.prediction, workers=3) == expected


def test_ids_may_be_strings_and_more_may_be_predicted(tree: Tree) -> None:
    expected = tree.evaluate()

    def change(content: dict) -> None:
        content["annotations"][0]["image_id"] = "1"
        content["annotations"].reverse()
        content["annotations"].append({**content["annotations"][0], "image_id": "more"})

    tree.edit("pred", change)
    assert tree.evaluate() == expected
    assert evaluate_panoptic_files(tree.truth, tree.prediction, 1).ignored == 1


def annotation(content: dict, index: int = 0) -> dict:
    return content["annotations"][index]


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        (
            "pred",
            lambda c: c["annotations"].pop(),
            r"pred\.json has no prediction for 1 of the 2 "
            r"images in .*gt\.json, the first is image b; predict",
        ),
        (
            "pred",
            lambda c: annotation(c)["segments_info"].pop(),
            r"pred/1\.png has pixels of segment "
            r"3, which its segments_info does not list",
        ),
        (
            "pred",
            lambda c: annotation(c)["segments_info"].append(segment(8, 45)),
            r"pred/1\.png has "
            "no pixels of segment 8, which its segments_info lists",
        ),
        (
            "pred",
            lambda c: annotation(c)["segments_info"][1].update(category_id=46),
            r"pred\.json: "
            r"image 1 \(1\.png\) has segment 2 of category 46, which .*gt\.json does not have; use",
        ),
        (
            "pred",
            lambda c: annotation(c)["segments_info"][1].update(id=1),
            r"pred\.json: image 1 "
            r"\(1\.png\) lists segment 1 twice",
        ),
        (
            "pred",
            lambda c: annotation(c)["segments_info"][1].update(id=256**3),
            "has segment 16777216; expected ids below 16777216",
        ),
        (
            "pred",
            lambda c: annotation(c, 1).update(image_id=1),
            r"image 1 \(b\.png\) is listed twic",
        ),
        (
            "pred",
            lambda c: annotation(c, 1).pop("file_name"),
            r"pred\.json has the annotation {'ima"
            r"ge_id': 'b'.* cannot be used \(KeyError\('file_name'\)\); expected image_id",
        ),
        (
            "pred",
            lambda c: annotation(c, 1)["segments_info"][0].update(id=4.0),
            "cannot be used .Ty",
        ),
        (
            "pred",
            lambda c: annotation(c, 1).update(file_name="c.png"),
            r"pred/c\.png does not exist,"
            r" though the JSON file lists it \(1 such\)",
        ),
        (
            "pred",
            lambda c: c.pop("annotations"),
            r"pred\.json has no list 'annotations'; expected a",
        ),
        ("gt", lambda c: c.pop("categories"), r"gt\.json has no list 'categories'"),
        (
            "gt",
            lambda c: c["categories"][0].pop("isthing"),
            r"gt\.json has categories without id or",
        ),
        ("gt", lambda c: c["annotations"].clear(), r"gt\.json has no annotations to evaluate with"),
        (
            "gt",
            lambda c: annotation(c)["segments_info"][0].update(category_id=4),
            r"gt\.json: image "
            r"1 \(1\.png\) has segment 7 of category 4",
        ),
        (
            "gt",
            lambda c: annotation(c)["segments_info"].pop(),
            r"gt/1\.png has pixels of segment 9",
        ),
        (
            "gt",
            lambda c: annotation(c)["segments_info"].append(segment(0, 21)),
            r"gt/1\.png lists se"
            "gment 0, the id of pixels without a label",
        ),
    ],
)
def test_json_files_with_mistakes(tree: Tree, name: str, change, expected: str) -> None:
    tree.edit(name, change)
    assert_fails(tree, expected)


def assert_fails(tree: Tree, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as error:
        tree.evaluate()
    assert "\n" not in str(error.value)


def test_files_with_mistakes(tree: Tree) -> None:
    tree.draw("pred", "b", [[4] * 19] * 2)
    assert_fails(tree, r"pred/b\.png is 19x2; expected 20x2, as .*gt/b\.png$")
    (tree.folder / "pred" / "b.png").write_bytes(b"\x89PNG")
    assert_fails(tree, r"label image .*pred/b\.png cannot be read: it is not an image")
    (tree.folder / "gt" / "b.png").unlink()
    assert_fails(tree, r"gt/b\.png does not exist, though the JSON file lists it \(1 such\)")
    (tree.folder / "gt").rename(tree.folder / "moved")
    assert_fails(tree, r"gt is not a folder; expected the PNG files")
    (tree.folder / "gt.json").write_text("{")
    assert_fails(tree, r"gt\.json is not a JSON file: ")
    (tree.folder / "gt.json").unlink()
    assert_fails(tree, r"gt\.json cannot be read: No such file")


def tool(monkeypatch: pytest.MonkeyPatch, tree: Tree, *words: object) -> None:
    """Run the command line in this process."""
    files = {"--gt-json": tree.truth.json_file, "--gt-dir": tree.truth.folder}
    files |= {"--pred-json": tree.prediction.json_file, "--pred-dir": tree.prediction.folder}
    line = [word for pair in files.items() for word in pair]
    monkeypatch.setattr(sys, "argv", ["evaluate-panoptic.py", *line, *map(str, words)])
    runpy.run_path(str(ROOT / "tools" / "evaluate-panoptic.py"), run_name="__main__")


def test_the_tool_prints_and_writes(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = tree.folder / "new" / "quality.json"
    tool(monkeypatch, tree, "--out", out, "--workers", 1)
    rows = [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines()]
    table = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}
    assert table["all"][:3] == ["37.778", "45.556", "55.556"]
    assert table["things"][:3] == ["66.667", "66.667", "100.000"]
    assert table["road"] == ["46.667", "70.000", "66.667", "1", "1", "0"]
    assert "dog" not in table
    assert json.loads(out.read_text()) == tree.evaluate()


def test_the_tool_names_mistakes(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for words, expected in [
        (["--workers", 0], "--workers is 0; expected at least 1"),
        (["--out", tree.folder], "--out .* is a folder; name a file in it"),
        (["--out", tree.folder / "gt.json" / "x"], "--out .* cannot be written: its folder cannot"),
        (["--out", tree.folder / "new.png"], r"--out .*new\.png: what is written is a \.json"),
    ]:
        with pytest.raises(SystemExit) as end:
            tool(monkeypatch, tree, *words)
        assert re.match(f"error: {expected}", end.value.code)
    assert capsys.readouterr().out == ""


def test_the_tool_replaces_nothing_by_accident(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out, link = tree.folder / "quality.json", tree.folder / "link.json"
    out.write_text("precious")
    link.symlink_to("pred.json")
    truth, prediction = tree.truth.json_file, tree.prediction.json_file
    before = Path(truth).read_bytes(), Path(prediction).read_bytes()
    for path, expected in [
        (truth, r"gt\.json is --gt-json; choose another name$"),
        (tree.folder / "pred" / ".." / "pred.json", "is --pred-json; choose another name$"),
        (link, r"link\.json is --pred-json; choose another name$"),
    ]:
        with pytest.raises(SystemExit) as end:
            tool(monkeypatch, tree, "--out", path, "--overwrite")
        assert re.match(f"error: --out .*{expected}", end.value.code)
    with pytest.raises(SystemExit) as end:
        tool(monkeypatch, tree, "--out", out)
    assert re.match("error: --out .* exists; choose another name or add --overwr", end.value.code)
    assert (Path(truth).read_bytes(), Path(prediction).read_bytes()) == before
    assert out.read_text() == "precious" and capsys.readouterr().out == ""
    tool(monkeypatch, tree, "--out", out, "--overwrite", "--workers", 1)
    assert json.loads(out.read_text()) == tree.evaluate()
