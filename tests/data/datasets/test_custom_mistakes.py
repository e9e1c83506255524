"""Every mistake in DATASETS.CUSTOM is one line that names the entry."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from detectron2.config import CfgNode
from PIL import Image

from ddep.data.datasets import register_from_config
from ddep.errors import UserError
from ddep.tasks import load_config
from tests.data.checks.trees import OWN, OWN_IMAGES, PANOPTIC, Tree, edit

ALL = (*OWN.values(), OWN_IMAGES)


def without(entry: dict, *keys: str) -> dict:
    return {key: value for key, value in entry.items() if key not in keys}


# For each mistake: a change of the tree's four entries (panoptic, semantic, instance, images), and
# a pattern of the error, after DATASETS.CUSTOM.
ENTRY_MISTAKES: dict[str, tuple[Callable[[list], object], str]] = {
    "no mapping": (lambda c: c.insert(0, "x"), ", entry 1 is 'x'; expected a mapping with name"),
    "no name": (
        lambda c: c[1].pop("name"),
        ", entry 2 has no name; expected text, for TRAIN and TEST to name it by$",
    ),
    "number as name": (lambda c: c[1].update(name=7), ", entry 2: name is 7; expected text"),
    "name of a folder": (
        lambda c: c[1].update(name="images:x"),
        r", entry 2 \(images:x\): a name cannot begin with images:",
    ),
    "name of a built-in set": (
        lambda c: c[1].update(name="camvid_sem_seg_train"),
        r", entry 2 \(camvid_sem_seg_train\): there is another data set of that name; choose",
    ),
    "name of another entry": (
        lambda c: c[2].update(name="own_panoptic"),
        r", entry 3 \(own_panoptic\) has the name of entry 1 ",
    ),
    "no kind": (
        lambda c: c[1].pop("kind"),
        r", entry 2 \(own_semantic\) has no kind; expected images or semantic or panoptic or",
    ),
    "unknown kind": (
        lambda c: c[1].update(kind="instances"),
        r", entry 2 \(own_semantic\): kind is 'instances'; did you mean instance\?; expected",
    ),
    "list as kind": (lambda c: c[1].update(kind=["semantic"]), r"kind is \['semantic'\]"),
    "unknown key": (
        lambda c: c[1].update(lables="x"),
        r": unknown key lables; kind semantic has images, labels, classes and may have ignore$",
    ),
    "misspelt key": (
        lambda c: c[1].update(lables=c[1].pop("labels")),
        r": unknown key lables; did you mean labels\?; kind semantic has images, labels",
    ),
    "key of another kind": (
        lambda c: c[3].update(labels="x"),
        r", entry 4 \(own_images\): unknown key labels; kind images has images$",
    ),
    "missing key": (lambda c: c[0].pop("json"), r"\(own_panoptic\): json is missing; kind panop"),
    "number as path": (lambda c: c[0].update(labels=3), r": labels is 3; expected a path$"),
    "empty path": (lambda c: c[0].update(json=""), r": json is ''; expected a path$"),
    "classes of another type": (
        lambda c: c[1].update(classes={"sky": 0}),
        r": classes is \{'sky': 0\}; expected a list of names, or a path$",
    ),
    "text as ignore": (lambda c: c[1].update(ignore="255"), ": ignore is '255'; expected a whole"),
    "negative ignore": (lambda c: c[1].update(ignore=-1), ": ignore is -1; expected a whole num"),
    "ignore without semantic labels": (
        lambda c: c.__setitem__(0, without(c[0], "semantic_labels") | {"ignore": 9}),
        ": ignore is about semantic_labels, which are missing; 0 is void in panoptic labels$",
    ),
}
FILE_MISTAKES: dict[str, tuple[Callable[[list], object], str]] = {
    "no such folder": (
        lambda c: c[3].update(images="nowhere"),
        ": images: there is no such folder; looked for .*/nowhere and .*/datasets/nowhere$",
    ),
    "no such folder of labels": (
        lambda c: c[1].update(labels="nowhere"),
        ": labels nowhere does not exist; looked for .*/nowhere and .*/datasets/nowhere$",
    ),
    "file as folder": (
        lambda c: c[1].update(labels="data/panoptic_train.json"),
        ": labels .*panoptic_train.json is a file; expected a folder$",
    ),
    "folder as file": (
        lambda c: c[2].update(json="data/train"),
        ": json .*data/train is a folder; expected a file$",
    ),
    "no such JSON file": (lambda c: c[0].update(json="x.json"), ": json x.json does not exist"),
    "no images": (
        lambda c: c[3].update(images="bare"),
        r"\(own_images\): images: no images in .*/bare or the folders in it; expected files that",
    ),
    "no images with labels": (
        lambda c: c[1].update(images="bare"),
        r"\(own_semantic\): no images in .*/bare or the folders in it; expected files that",
    ),
    "no labels": (
        lambda c: c[1].update(labels="data/others/bare"),
        r"\(own_semantic\): no images in .*/others/bare or the folders in it; expected files that",
    ),
    "one folder for both": (
        lambda c: c[1].update(labels=c[1]["images"]),
        ": images and labels are the same folder; expected a folder for each$",
    ),
    "images of none of the labels": (
        lambda c: c[0].update(images="data/others"),
        r"\(own_panoptic\): .*others/a.png does not exist, nor does any other that .*json lists",
    ),
    "images of none of the annotations": (
        lambda c: c[2].update(images="data/others"),
        r"\(own_instance\): .*others/a.png does not exist, nor does any other image that",
    ),
    "no such file of classes": (
        lambda c: c[1].update(classes="x.txt"),
        ": classes x.txt does not exist; looked for",
    ),
    "image as file of classes": (
        lambda c: c[1].update(classes="data/train/a.png"),
        ": classes .*a.png is not UTF-8 text; expected one name per line$",
    ),
    "no classes": (lambda c: c[1].update(classes=[]), ": classes has no class; expected at"),
    "number as class": (
        lambda c: c[1].update(classes=["sky", 5]),
        ": class 1 of classes is 5; expected text: put it in quotes$",
    ),
    "class without name": (
        lambda c: c[1].update(classes="data/gap.txt"),
        ": class 1 of classes .*gap.txt has no name; expected one$",
    ),
    "class twice": (
        lambda c: c[1].update(classes=["sky", "sea", "sky"]),
        ": classes has 'sky' as classes 0 and 2; expected different names$",
    ),
    "ignore among the classes": (
        lambda c: c[1].update(ignore=2),
        ": ignore is 2, which is a class: there are 3 classes, 0 to 2; expected a larger number, "
        "such as 255, and labels to match$",
    ),
    "ignore among the categories": (
        lambda c: c[0].update(ignore=0),
        r"\(own_panoptic\): ignore is 0, which is a class",
    ),
    "instance JSON for panoptic": (
        lambda c: c[0].update(json="data/instances_train.json"),
        ": json .*instances_train.json has instance annotations; expected panoptic ones$",
    ),
    "panoptic JSON for instances": (
        lambda c: c[2].update(json="data/panoptic_train.json"),
        ": json .*panoptic_train.json has panoptic annotations; expected instance ones$",
    ),
    "other JSON": (
        lambda c: c[2].update(json="data/other.json"),
        r": json .*other.json has no list 'images'; expected a JSON file in COCO's format",
    ),
    "other classes than the JSON file's": (
        lambda c: c[0].update(classes=["sky", "sea", "cat"]),
        r": class 1 is 'sea' by classes, and 'cat' by the categories of json .*panoptic_train.json "
        "in the order of their ids; expected the same, or no classes$",
    ),
    "fewer classes than the JSON file's": (
        lambda c: c[0].update(classes=["sky", "cat"]),
        r": class 2 is absent by classes, and 'sea' by the categories",
    ),
}


@pytest.mark.parametrize("mistake", ENTRY_MISTAKES)
def test_mistakes_in_entries(mistake: str, tree: Tree, config) -> None:
    """They are found whether a data set is used or not."""
    change, expected = ENTRY_MISTAKES[mistake]
    custom = tree.custom()
    change(custom)
    assert_refused(config("DATASETS.CUSTOM", custom), expected, ())


@pytest.mark.parametrize("mistake", FILE_MISTAKES)
def test_mistakes_in_files(mistake: str, tree: Tree, config, root: Path) -> None:
    (root / "bare").mkdir()
    (root / "data" / "others" / "bare").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(root / "data" / "others" / "z.png")
    (root / "data" / "gap.txt").write_text("sky\n\nsea\n")
    (root / "data" / "other.json").write_text(json.dumps({"a": 1}))
    change, expected = FILE_MISTAKES[mistake]
    custom = tree.custom()
    change(custom)
    assert_refused(config("DATASETS.CUSTOM", custom, "DATASETS.TEST", ALL), expected, ("TEST",))


@pytest.mark.parametrize(
    "custom", [{"name": "a", "kind": "images"}, {"a": {"kind": "images", "images": "x"}}]
)
def test_entries_that_are_not_a_list(custom: dict, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"DATASETS": {"CUSTOM": custom}}))
    with pytest.raises(UserError, match="yaml: DATASETS.CUSTOM has keys below it; expected a list"):
        load_config(str(config))


CATEGORY_MISTAKES: dict[str, tuple[Callable[[list], object], str]] = {
    "no id": (lambda c: c[1].pop("id"), "id of category 2 of json .* is None; expected a whole"),
    "text as id": (lambda c: c[1].update(id="7"), "id of category 2 of json .* is '7'; expected"),
    "no name": (lambda c: c[0].update(name=""), "name of category 1 of .* is ''; expected text$"),
    "no isthing": (lambda c: c[2].pop("isthing"), "isthing of category 3 .* is None; expected 0 "),
    "id twice": (
        lambda c: c[1].update(id=3),
        "json .* has two categories with id 3; expected one$",
    ),
    "name twice": (
        lambda c: c[1].update(name="sky"),
        "categories of json .* has 'sky' as classes 0 and 1; expected different names$",
    ),
    "no category": (lambda c: c.clear(), "categories of json .* has no class; expected at"),
    "no mapping": (lambda c: c.append("x"), "id of category 4 of json .* is None; expected"),
}


@pytest.mark.parametrize("mistake", CATEGORY_MISTAKES)
def test_mistakes_in_categories(mistake: str, tree: Tree, config) -> None:
    change, expected = CATEGORY_MISTAKES[mistake]
    edit(tree.split.panoptic_json, lambda content: change(content["categories"]))
    cfg = config("DATASETS.CUSTOM", tree.custom(), "DATASETS.TRAIN", (OWN[PANOPTIC],))
    assert_refused(cfg, rf", entry 1 \(own_panoptic\): {expected}", ("TEST",))


def assert_refused(cfg: CfgNode, expected: str, keys: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=f"^DATASETS.CUSTOM.*{expected}") as error:
        register_from_config(cfg, keys)
    assert "\n" not in str(error.value)
