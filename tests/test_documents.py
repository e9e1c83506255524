"""What the documents name exists: links, files, config keys, options of commands."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser

from ddep.tasks import load_config, registry

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for pattern in ("README.md", "docs/*.md", "datasets/README.md", "examples/README.md")
    for path in ROOT.glob(pattern)
)

LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
FILE = re.compile(
    r"(?<![\w/.<])(?:(?:configs|ddep|docs|examples|tests|tools)/[\w./{},-]*\.(?:yaml|py|md|sh|csv)"
    r"|datasets/[\w./-]*\.(?:py|md)|train_net\.py)\b"
)
KEY = re.compile(
    r"(?<![\w.])(?:DATALOADER|DATASETS|INPUT|MODEL|SOLVER|TEST|WANDB)(?:\.[A-Z{][\w{},]*)+"
)
COMMAND = re.compile(r"(?:python|torchrun [^\n]*?) ((?:tools/[\w/.-]+|train_net)\.py)([^\n]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=str)


@pytest.fixture(scope="module", autouse=True)
def tasks_of_examples() -> Iterator[None]:
    """The tasks that the examples register are known to these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_TASKS", dict(registry._TASKS))
        yield


def text_of(document: Path) -> str:
    return (ROOT / document).read_text()


@cache
def anchors(path: Path) -> set[str]:
    """The anchors of the headings in a document, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in words}


def expand(name: str) -> list[str]:
    """``a_{b,c}`` as ``a_b`` and ``a_c``."""
    parts = re.split(r"\{([^}]*)\}", name)
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*choices)]


def has_key(cfg: CfgNode, key: str) -> bool:
    node = cfg
    for word in key.split("."):
        if not isinstance(node, CfgNode) or word not in node:
            return False
        node = node[word]
    return True


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    for target, anchor in LINK.findall(text_of(document)):
        path = (ROOT / document.parent / target).resolve() if target else ROOT / document
        assert path.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(path), f"{target} has no heading #{anchor}"


@every_document
def test_named_files_exist(document: Path) -> None:
    named = {name for found in FILE.findall(text_of(document)) for name in expand(found)}
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


@every_document
def test_named_config_keys_exist(document: Path) -> None:
    examples = sorted(ROOT.glob(f"{document.parent}/*.yaml")) or [ROOT / "configs/ddep_swin.yaml"]
    configs = [load_config(str(path)) for path in examples]
    named = {key for found in KEY.findall(text_of(document)) for key in expand(found)}
    known = {key for key in named for cfg in configs if has_key(cfg, key)}
    assert named - known == set()


@every_document
def test_options_of_commands_exist(document: Path) -> None:
    text = text_of(document).replace("\\\n", "")
    for script, words in COMMAND.findall(text):
        source = (ROOT / script).read_text()
        if script == "train_net.py":
            source = inspect.getsource(default_argument_parser)
        unknown = [option for option in OPTION.findall(words) if f'"{option}"' not in source]
        assert unknown == [], f"{script} has no such options"


def test_readme_leads_to_every_page() -> None:
    linked = {target for target, _ in LINK.findall(text_of(Path("README.md")))}
    pages = {str(document) for document in DOCUMENTS} - {"README.md"}
    assert pages - linked == set()
