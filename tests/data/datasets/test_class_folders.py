"""``classes:<folder>`` against torchvision's ImageFolder, and mistakes in one."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ddep.config import add_ddep_config
from ddep.data.datasets import register_from_config
from ddep.data.datasets.class_folders import ClassFolders, load_class_folders
from ddep.data.image_reader import read_image
from ddep.data.labels import choose_labelled
from ddep.errors import UserError

# Names that sort before "/" and after it, and one in capitals.
IMAGES = [
    "cat/b.png",
    "cat/a.png",
    "cat-big/1.png",
    "cat0/1.png",
    "Zebra/x/y/1.png",
    "Zebra/2.png",
    "äffchen/1.png",
]


def write(folder: Path, names: list[str]) -> Path:
    for index, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), index, np.uint8)).save(folder / name)
    return folder


def pack(folder: Path, target: Path) -> None:
    with tarfile.open(target, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)


def found(records: ClassFolders) -> dict[str, str]:
    return {
        record["image_id"]: records.classes[number]
        for record in records
        for number in record["classes"]
    }


def test_classes_and_images_are_torchvisions(tmp_path: Path) -> None:
    write(tmp_path, IMAGES)
    theirs = torchvision.datasets.ImageFolder(str(tmp_path))
    records = load_class_folders(f"classes:{tmp_path}")
    assert records.classes == theirs.classes
    expected = {path: [number] for path, number in theirs.samples}
    assert {record["file_name"]: record["classes"] for record in records} == expected
    assert len(records) == len(IMAGES)


def test_records_behave_like_a_list(tmp_path: Path) -> None:
    records = load_class_folders(f"classes:{write(tmp_path, IMAGES)}")
    listed = list(records)
    assert [records[i] for i in range(-len(records), 0)] == listed
    assert records[2:6:2] == listed[2:6:2]
    assert pickle.loads(pickle.dumps(records))[3] == listed[3]
    for beyond in (len(records), -len(records) - 1):
        with pytest.raises(IndexError):
            records[beyond]


def test_tar_files_count_as_folders(tmp_path: Path) -> None:
    """One of all classes, and one for each class, as ImageNet's are."""
    expected = found(load_class_folders(f"classes:{write(tmp_path / 'folder', IMAGES)}"))
    pack(tmp_path / "folder", tmp_path / "whole.tar")
    whole = load_class_folders(f"classes:{tmp_path / 'whole.tar'}")
    assert found(whole) == expected
    (tmp_path / "tars").mkdir()
    for folder in (tmp_path / "folder").iterdir():
        pack(folder, tmp_path / "tars" / f"{folder.name}.tar")
    assert found(load_class_folders(f"classes:{tmp_path / 'tars'}")) == expected
    record = next(record for record in whole if record["image_id"] == IMAGES[2])
    assert (read_image(record["file_name"]) == 2).all()


def config(*sets: str, **keys: object) -> CfgNode:
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.DATASETS.TRAIN = sets
    for key, value in keys.items():
        cfg.DATASETS[key] = value
    return cfg


def test_a_config_registers_them_with_their_classes(tmp_path: Path) -> None:
    name = f"classes:{write(tmp_path, IMAGES)}"
    register_from_config(config(name), keys=())
    assert MetadataCatalog.get(name).labelled_for == ("classification",)
    register_from_config(config(name))
    assert MetadataCatalog.get(name).classes == ["Zebra", "cat", "cat-big", "cat0", "äffchen"]
    write(tmp_path, ["new/1.png"])
    register_from_config(config(name))
    assert "new" in MetadataCatalog.get(name).classes
    assert len(DatasetCatalog.get(name)) == 8


def test_few_labels_are_the_same_in_a_folder_and_a_tar_file(tmp_path: Path) -> None:
    sets = []
    for place in ("a", "b"):
        folder = write(tmp_path / place, IMAGES)
        pack(folder, tmp_path / f"{place}.tar")
        for source in (folder, tmp_path / f"{place}.tar"):
            name = f"classes:{source}"
            [chosen] = choose_labelled(
                config(name, LABEL_COUNT=3), [name], [load_class_folders(name)]
            )
            sets.append([record["image_id"] for record in chosen])
    assert len(sets[0]) == 3
    assert sets[1:] == sets[:1] * 3


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/1.png", "dog.png"], r"dog\.png is beside the folders of the classes; expected"),
        ([], r"no images in "),
    ],
)
def test_other_folders_are_refused(names: list[str], message: str, tmp_path: Path) -> None:
    name = f"classes:{tmp_path}"
    write(tmp_path, names)
    with pytest.raises(UserError, match=rf"DATASETS\.TRAIN: data set {name}: .*{message}"):
        register_from_config(config(name))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    name = f"classes:{tmp_path / 'nowhere'}"
    with pytest.raises(UserError, match=rf"data set {name}: there is no such folder; looked for"):
        register_from_config(config(name))
    with pytest.raises(UserError, match=r"'classes:' names no folder; write classes:<folder>"):
        register_from_config(config("classes:"))
