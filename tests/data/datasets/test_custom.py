"""Data sets of DATASETS.CUSTOM: their records, and the message for every mistake."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ddep.data import check_training_sets
from ddep.data.datasets import register_from_config
from ddep.data.datasets.custom_entries import REQUIRED, read_entries
from ddep.data.image_reader import read_image
from ddep.data.mappers import build_mapper
from ddep.errors import UserError
from ddep.tasks import load_config
from tests.data.checks.trees import (
    CATEGORIES,
    INSTANCES,
    NAMES,
    OWN,
    OWN_IMAGES,
    PANOPTIC,
    SEMANTIC,
    Tree,
    edit,
)

ALL = (*OWN.values(), OWN_IMAGES)
CLASSES = ["sky", "cat", "sea"]


@pytest.fixture
def tree(root: Path) -> Iterator[Tree]:
    """The data in the folder ``data`` of $DETECTRON2_DATASETS."""
    tree = Tree(root / "data")
    yield tree
    tree.unregister()


def register_all_of(config: Callable[..., CfgNode], custom: list[Any]) -> None:
    register_from_config(config("DATASETS.CUSTOM", custom, "DATASETS.TRAIN", ALL))


def test_records(tree: Tree, config) -> None:
    register_all_of(config, tree.custom())
    for name in ALL:
        records = DatasetCatalog.get(name)
        assert [r["file_name"] for r in records] == [str(tree.image(n)) for n in NAMES]
    semantic, panoptic, instance = (
        DatasetCatalog.get(OWN[name])[1] for name in (SEMANTIC, PANOPTIC, INSTANCES)
    )
    assert semantic["sem_seg_file_name"] == str(tree.semantic("b"))
    assert panoptic["sem_seg_file_name"] == str(tree.semantic("b"))
    assert panoptic["pan_seg_file_name"] == str(tree.panoptic("b"))
    segments = [(s["category_id"], s["isthing"]) for s in panoptic["segments_info"]]
    assert segments == [(0, False), (1, True)]
    assert [a["category_id"] for a in instance["annotations"]] == [0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("own_semantics", "unknown data set 'own_semantics'; did you mean own_semantic"),
        (
            "xyz",
            f"datasets/README.md lists them and DATASETS.CUSTOM has {', '.join(ALL)}; a folder",
        ),
    ],
)
def test_a_name_that_no_entry_has(tree: Tree, config, name: str, expected: str) -> None:
    cfg = config("DATASETS.CUSTOM", tree.custom(), "DATASETS.TRAIN", (name,))
    with pytest.raises(UserError, match=expected):
        register_from_config(cfg)


@pytest.mark.parametrize(
    ("name", "mapper", "needed", "labels", "expected"),
    [
        (OWN_IMAGES, "mask_former_semantic", "sem_seg", "nothing", "ddep_denoising"),
        (OWN[SEMANTIC], "mask_former_panoptic", "panoptic_seg", "sem_seg", "mask_former_semantic"),
        (OWN[SEMANTIC], "mask_former_instance", "segm", "sem_seg", "mask_former_semantic"),
        (
            *(OWN[PANOPTIC], "coco_instance_lsj", "segm", "panoptic_seg and sem_seg"),
            "mask_former_semantic or mask_former_panoptic or coco_panoptic_lsj or detr_panoptic",
        ),
        (
            *(OWN[INSTANCES], "mask_former_semantic", "sem_seg", "bbox and segm"),
            "mask_former_instance or coco_instance_lsj or detection",
        ),
    ],
)
def test_a_mapper_that_needs_other_labels(
    tree: Tree, config, name: str, mapper: str, needed: str, labels: str, expected: str
) -> None:
    cfg = config(
        *("DATASETS.CUSTOM", tree.custom(), "DATASETS.TRAIN", (name,)),
        *("INPUT.DATASET_MAPPER_NAME", mapper),
    )
    register_from_config(cfg)
    with pytest.raises(UserError) as caught:
        check_training_sets(cfg)
    assert str(caught.value) == (
        f"DATASETS.TRAIN has {name}, which has labels for {labels}, but "
        f"INPUT.DATASET_MAPPER_NAME {mapper} needs labels for {needed}; expected {expected} to "
        "train on it"
    )


@pytest.mark.parametrize(
    ("name", "mapper", "keys"),
    [
        *((name, "ddep_denoising", {"noise", "sigma"}) for name in ALL),
        (OWN[SEMANTIC], "mask_former_semantic", {"instances", "sem_seg"}),
        (OWN[PANOPTIC], "mask_former_semantic", {"instances", "sem_seg"}),
        (OWN[PANOPTIC], "detr_panoptic", {"instances", "sem_seg", "pan_seg"}),
        (OWN[INSTANCES], "coco_instance_lsj", {"instances"}),
    ],
)
def test_mappers_of_each_kind(tree: Tree, config, name: str, mapper: str, keys: set[str]) -> None:
    """They pass the check, and make a sample of each image."""
    cfg = config(
        *("DATASETS.CUSTOM", tree.custom(), "DATASETS.TRAIN", (name,)),
        *("INPUT.DATASET_MAPPER_NAME", mapper, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", len(CLASSES)),
        *("INPUT.MIN_SIZE_TRAIN", (32,), "INPUT.IMAGE_SIZE", 32, "INPUT.CROP.ENABLED", False),
    )
    register_from_config(cfg)
    check_training_sets(cfg)
    make_sample = build_mapper(cfg, is_train=True)
    samples = [make_sample(record) for record in DatasetCatalog.get(name)]
    described = {"image", "file_name", "image_id", "height", "width"}
    assert [{*sample} - described for sample in samples] == [keys] * len(NAMES)
    assert [sample["file_name"] for sample in samples] == [str(tree.image(n)) for n in NAMES]


def test_metadata(tree: Tree, config) -> None:
    register_all_of(config, tree.custom())
    semantic, panoptic, instance, images = (
        MetadataCatalog.get(name) for name in (OWN[SEMANTIC], OWN[PANOPTIC], OWN[INSTANCES], ALL[3])
    )
    assert [m.evaluator_type for m in (semantic, panoptic, instance, images)] == [
        *("sem_seg", "panoptic_seg", "coco", "images")
    ]
    assert semantic.stuff_classes == panoptic.stuff_classes == CLASSES
    assert semantic.ignore_label == panoptic.ignore_label == 255
    assert panoptic.stuff_colors == [category["color"] for category in CATEGORIES]
    colors = np.array(semantic.stuff_colors)
    assert colors.shape == (3, 3) and len(np.unique(colors, axis=0)) == 3
    assert colors.dtype == int and colors.min() >= 0 and colors.max() <= 255
    assert instance.thing_classes == ["cat"]
    assert panoptic.thing_dataset_id_to_contiguous_id == {7: 1}
    assert panoptic.stuff_dataset_id_to_contiguous_id == {3: 0, 7: 1, 9: 2}
    assert instance.thing_dataset_id_to_contiguous_id == {7: 0}


def test_categories_are_numbered_by_their_ids_and_coloured_if_they_are_not(
    tree: Tree, config
) -> None:
    def change(content: dict) -> None:
        content["categories"].reverse()
        del content["categories"][0]["color"]

    edit(tree.split.panoptic_json, change)
    register_all_of(config, tree.custom())
    metadata = MetadataCatalog.get(OWN[PANOPTIC])
    assert metadata.stuff_classes == CLASSES
    assert metadata.stuff_colors[0] == [0, 128, 255]
    assert len(metadata.stuff_colors[2]) == 3


def test_relative_paths_are_looked_for_in_the_working_directory_and_then_among_the_data_sets(
    tree: Tree, config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {"images": "data/train", "labels": "data/sem_seg_train"}
    custom = [tree.custom()[3] | {"images": "data/train"}, tree.custom()[1] | folders]
    names = OWN_IMAGES, OWN[SEMANTIC]
    cfg = config("DATASETS.CUSTOM", custom, "DATASETS.TRAIN", names)
    monkeypatch.chdir(tmp_path)
    register_from_config(cfg)
    for name in names:
        assert DatasetCatalog.get(name)[0]["file_name"] == str(tree.image("a"))
    image, label = (tmp_path / folder / "x.png" for folder in folders.values())
    for path in (image, label):
        path.parent.mkdir(parents=True)
        path.touch()
    register_from_config(cfg)
    assert [r["file_name"] for r in DatasetCatalog.get(OWN_IMAGES)] == [str(image)]
    pair = {"file_name": str(image), "sem_seg_file_name": str(label)}
    assert DatasetCatalog.get(OWN[SEMANTIC]) == [pair]


def test_labels_are_found_at_any_depth_whatever_the_endings(config, root: Path, tree: Tree) -> None:
    for path in ("images/a.b.jpg", "images/inner/c.PNG", "images/labels/a.b.png"):
        tree.save(root / path, np.zeros((4, 4), dtype=np.uint8))
    tree.save(root / "images/labels/inner/c.tif", np.zeros((4, 4), dtype=np.uint8))
    entry = tree.custom()[1] | {"images": "images", "labels": "images/labels"}
    register_from_config(config("DATASETS.CUSTOM", [entry], "DATASETS.TEST", (entry["name"],)), ())
    assert DatasetCatalog.get(entry["name"]) == [
        {
            "file_name": str(root / "images" / image),
            "sem_seg_file_name": str(root / "images/labels" / label),
        }
        for image, label in (("a.b.jpg", "a.b.png"), ("inner/c.PNG", "inner/c.tif"))
    ]


def test_classes_from_a_file(tree: Tree, config) -> None:
    file = tree.folder / "classes.txt"
    file.write_text("sky\n cat \nopen sea\n\n", encoding="utf-8-sig")
    custom = tree.custom()
    custom[1]["classes"] = "data/classes.txt"
    custom[1]["ignore"] = 100
    register_all_of(config, custom)
    metadata = MetadataCatalog.get(OWN[SEMANTIC])
    assert metadata.stuff_classes == ["sky", "cat", "open sea"]
    assert metadata.ignore_label == 100


def test_only_what_is_used_must_exist(tree: Tree, config) -> None:
    """An entry that is not named is for another config; one to train on is not evaluated."""
    elsewhere = {"name": "elsewhere", "kind": "images", "images": "nowhere"}
    custom = [*tree.custom(), elsewhere]
    register_all_of(config, custom)
    assert "elsewhere" not in DatasetCatalog
    cfg = config("DATASETS.CUSTOM", custom, "DATASETS.TRAIN", ("elsewhere",))
    register_from_config(cfg, keys=("TEST",))
    with pytest.raises(UserError, match="images: there is no such folder"):
        register_from_config(cfg)
    DatasetCatalog.pop("elsewhere")
    MetadataCatalog.pop("elsewhere")


def test_images_in_a_tar_file(tree: Tree, config) -> None:
    with tarfile.open(tree.folder / "images.tar", "w") as file:
        file.add(tree.image("c"), "c.png")
    entry = {"name": OWN_IMAGES, "kind": "images", "images": "data/images.tar"}
    register_from_config(config("DATASETS.CUSTOM", [entry], "DATASETS.TRAIN", (OWN_IMAGES,)))
    [record] = DatasetCatalog.get(OWN_IMAGES)
    assert np.array_equal(read_image(record["file_name"]), read_image(str(tree.image("c"))))


def test_files_of_configs_and_the_command_line(tree: Tree, tmp_path: Path) -> None:
    custom = tree.custom()
    (tmp_path / "base.yaml").write_text(
        yaml.safe_dump({"DATASETS": {"CUSTOM": custom, "TRAIN": [OWN_IMAGES]}, "VERSION": 2})
    )
    child = tmp_path / "child.yaml"
    child.write_text("_BASE_: base.yaml\n")
    cfg = load_config(str(child))
    assert custom == cfg.DATASETS.CUSTOM
    cfg.freeze()
    register_from_config(cfg)
    (tmp_path / "dumped.yaml").write_text(cfg.dump())
    assert load_config(str(tmp_path / "dumped.yaml")).DATASETS == cfg.DATASETS
    assert custom == cfg.clone().DATASETS.CUSTOM

    own = [custom[3] | {"name": "other"}]
    child.write_text(yaml.safe_dump({"_BASE_": "base.yaml", "DATASETS": {"CUSTOM": own}}))
    assert own == load_config(str(child)).DATASETS.CUSTOM
    assert custom == load_config(str(child), ["DATASETS.CUSTOM", repr(custom)]).DATASETS.CUSTOM
    child.write_text("DATASETS:\n  CUSTOM:\n  TRAIN: [images:data]\n")
    register_from_config(load_config(str(child)))


def test_the_entries_that_the_documentation_shows_are_right() -> None:
    text = (Path(__file__).parents[3] / "datasets" / "README.md").read_text(encoding="utf-8")
    section = text.split("## Your own data sets")[1].split("| kind |")[0]
    shown = yaml.safe_load("\n".join(re.findall("^    .*", section, re.MULTILINE)))["DATASETS"]
    assert {entry.kind for entry in read_entries(shown["CUSTOM"])} == REQUIRED.keys()
    assert {*shown["TRAIN"], *shown["TEST"]} <= {entry["name"] for entry in shown["CUSTOM"]}


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
