"""One file adds a data set."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ddep.data.datasets import labelled_for, register_all
from ddep.data.datasets.declaration import declarations, find_declaration
from ddep.data.datasets.prepare_command import main
from ddep.errors import UserError

OWN_FILE = """
from pathlib import Path

from ddep.data.datasets.declaration import (
    WORKERS,
    DatasetDeclaration,
    Preparation,
    declare,
)
from ddep.data.datasets.semantic import register_semantic


def register_moss(root: Path) -> None:
    register_semantic("moss_train", root / "moss" / "images", root / "moss" / "labels", ["moss"])


def prepare_moss(source: Path, folder: Path, workers: int) -> dict[str, dict[str, int]]:
    folder.mkdir()
    return {"train": {"workers": workers, "files": len(list(source.iterdir()))}}


declare(
    DatasetDeclaration(
        name="moss",
        how_to_get={"moss_*": "collect it"},
        register=register_moss,
        preparation=Preparation(
            summary="labels of moss",
            source_help="the collection",
            folder="moss",
            folder_help="to write to",
            prepare=prepare_moss,
            options=WORKERS,
            notes=lambda folder: iter([f"see {folder}"]),
        ),
    )
)
"""


@pytest.fixture
def own_file(root: Path, own_declarations: None, tmp_path: Path) -> Path:
    """A file outside the package that declares a data set, imported."""
    path = tmp_path / "moss.py"
    path.write_text(OWN_FILE)
    spec = importlib.util.spec_from_file_location("moss", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return path


def test_a_declared_set_is_registered_and_moves_with_the_others(own_file, root, tmp_path) -> None:
    assert MetadataCatalog.get("moss_train").image_root == str(root / "moss" / "images")
    assert labelled_for("moss_train") == ("sem_seg",)
    register_all(tmp_path / "elsewhere")
    assert MetadataCatalog.get("moss_train").image_root.startswith(str(tmp_path / "elsewhere"))


def test_a_declared_set_is_prepared(own_file, root, tmp_path, capsys) -> None:
    main(["moss", str(tmp_path), "--workers", "3"])
    expected = f"written to {root}/moss:\n  train: 3 workers, 2 files\nsee {root}/moss\n"
    assert capsys.readouterr().out == expected
    main([])
    assert "  moss              labels of moss\n" in capsys.readouterr().out
    with pytest.raises(UserError, match="unknown data set 'mos'; did you mean moss?"):
        main(["mos"])


def test_a_declaration_of_the_same_name_replaces_the_earlier_one(own_file, root) -> None:
    number = len(declarations())
    exec(compile(OWN_FILE.replace("collect it", "grow it"), "again", "exec"), {})
    assert len(declarations()) == number
    assert find_declaration("moss_train")[1] == "grow it"


def test_each_pattern_finds_its_data_set() -> None:
    """Each pattern is about a registered name."""
    found = [find_declaration(name) for name in DatasetCatalog.list()]
    for declaration in declarations():
        for how in declaration.how_to_get.values():
            assert (declaration, how) in found
    assert find_declaration("ade20k_full_sem_seg_val")[0].name == "ade20k_full"
    assert find_declaration("mapillary_vistas_19_sem_seg_val")[1].endswith(
        "run python datasets/prepare.py mapillary_vistas"
    )
    assert find_declaration("coco_2017_val_100") is None


def test_commands_in_messages_name_the_data_set() -> None:
    for declaration in declarations():
        for how in declaration.how_to_get.values():
            if "datasets/prepare.py" in how:
                assert how.split("datasets/prepare.py ")[1].split()[0] == declaration.name
                assert declaration.preparation
