"""Configs import modules, may set keys that a task adds, and get the defaults of their task."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ddep.data.mappers import mapper_class
from ddep.errors import UserError
from ddep.tasks import load_config, registry, task_of

# Adds an x to the file "imports" beside it.
COUNTER = """
from pathlib import Path
with Path(__file__).with_name("imports").open("a") as file:
    file.write("x")
"""
TASK = """
from detectron2.config import CfgNode
from ddep.tasks import SegmentationTask, register_task

@register_task
class OwnTask(SegmentationTask):
    meta_architectures = ("OwnModel",)
    mappers = ("own_mapper", "other_mapper")

    def add_config(self, cfg):
        cfg.MODEL.OWN = CfgNode({"DEPTH": 3})
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module; what a test imports and registers is forgotten at its end."""
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "counting_module.py").write_text(COUNTER)
    yield folder
    for name in list(sys.modules):
        if name.startswith("ddep_imports.") or name == "counting_module":
            del sys.modules[name]


def write(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def imports(folder: Path) -> int:
    """How often the module in ``folder`` was imported."""
    file = folder / "imports"
    return len(file.read_text()) if file.exists() else 0


def test_a_module_is_imported_by_its_name_once(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(own))
    config = write(own / "config.yaml", "IMPORTS: [counting_module]\n")
    for _ in range(2):
        assert load_config(config).IMPORTS == ["counting_module"]
    assert imports(own) == 1


def test_a_file_is_relative_to_the_config_that_names_it(own: Path, tmp_path: Path) -> None:
    base = write(own / "base.yaml", "IMPORTS: [counting_module.py]\n")
    config = write(tmp_path / "elsewhere" / "config.yaml", f"_BASE_: {base}\n")
    for path in (base, config, base):
        [found] = load_config(path).IMPORTS
        assert found == str(own / "counting_module.py")
    assert imports(own) == 1


def test_the_command_line_overrides_the_file(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write(tmp_path / "config.yaml", "IMPORTS: [absent.py]\n")
    assert load_config(config, ["IMPORTS", "[]"]).IMPORTS == []
    assert imports(own) == 0
    # There, a file is relative to the working directory.
    monkeypatch.chdir(own)
    load_config(config, ["IMPORTS", "['counting_module.py']"])
    assert imports(own) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "FileNotFoundError: .*No such file"),
        ("a b", "SyntaxError: "),
        ("raise ValueError('one\\ntwo')", "ValueError: one two"),
        ("import absent_module", "ModuleNotFoundError: No module named 'absent_module'"),
    ],
)
def test_a_file_that_fails_to_import_is_named_in_one_line(
    own: Path, content: str | None, message: str
) -> None:
    config, file = write(own / "config.yaml", "IMPORTS: [failing.py]\n"), own / "failing.py"
    if content is not None:
        file.write_text(content)
    where = re.escape(f"{config}: IMPORTS has {file}, which cannot be imported: ")
    with pytest.raises(UserError, match=where + message) as error:
        load_config(config)
    assert "\n" not in str(error.value)
    # Once mended, it is imported.
    file.write_text(COUNTER)
    load_config(config)
    assert imports(own) == 1


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[absent_package.module]", "IMPORTS has absent_package.module, .*No module named"),
        ("module", "IMPORTS is 'module'; expected a list"),
        ("[1]", r"IMPORTS is \[1\]; expected a list"),
    ],
)
def test_imports_must_be_a_list_of_modules_that_exist(own: Path, value: str, message: str) -> None:
    config = write(own / "config.yaml", f"IMPORTS: {value}\n")
    with pytest.raises(UserError, match=f"config.yaml: {message}"):
        load_config(config)


def test_an_error_for_the_user_is_passed_on(own: Path) -> None:
    write(own / "failing.py", "from ddep.errors import UserError\nraise UserError('mine')\n")
    with pytest.raises(UserError, match="^mine$"):
        load_config(write(own / "config.yaml", "IMPORTS: [failing.py]\n"))


def test_an_imported_task_adds_keys_and_has_a_default_mapper(own: Path) -> None:
    write(own / "task.py", TASK)
    text = "IMPORTS: [task.py]\nMODEL: {META_ARCHITECTURE: OwnModel, OWN: {DEPTH: 5}}\n"
    config = write(own / "config.yaml", text)
    cfg = load_config(config)
    assert (cfg.MODEL.OWN.DEPTH, cfg.INPUT.DATASET_MAPPER_NAME) == (5, "own_mapper")
    words = ["MODEL.OWN.DEPTH", "7", "INPUT.DATASET_MAPPER_NAME", "other_mapper"]
    cfg = load_config(config, words)
    assert (cfg.MODEL.OWN.DEPTH, cfg.INPUT.DATASET_MAPPER_NAME) == (7, "other_mapper")
    with pytest.raises(UserError, match=r"MODEL\.OWN\.DEPHT; did you mean MODEL\.OWN\.DEPTH"):
        load_config(config, ["MODEL.OWN.DEPHT", "7"])


@pytest.mark.parametrize(
    ("meta_architecture", "mapper"),
    [
        ("DenoisingPretrainer", "ddep_denoising"),
        ("MaskFormer", "mask_former_semantic"),
        ("SemanticSegmentor", "mask_former_semantic"),
        ("GeneralizedRCNN", "detection"),
        ("ImageClassifier", "classification"),
        ("RetinaNet", ""),  # no task serves it
    ],
)
def test_the_default_mapper_is_that_of_the_task(
    own: Path, meta_architecture: str, mapper: str
) -> None:
    config = write(own / "config.yaml", f"MODEL: {{META_ARCHITECTURE: {meta_architecture}}}\n")
    cfg = load_config(config)
    found = cfg.INPUT.DATASET_MAPPER_NAME
    assert found == mapper
    if mapper:
        for name in task_of(cfg).mappers:
            assert mapper_class(name)
