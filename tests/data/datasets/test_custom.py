"""Data sets of DATASETS.CUSTOM: their records, metadata and mappers."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

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
            "mask_former_semantic or mask_former_panoptic or coco_panoptic_lsj or detr_panoptic or "
            "detr_panoptic_boxes",
        ),
        (
            *(OWN[INSTANCES], "mask_former_semantic", "sem_seg", "bbox and segm"),
            "mask_former_instance or coco_instance_lsj or detection or detr_detection",
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
