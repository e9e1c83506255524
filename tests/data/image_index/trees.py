"""Trees of files for the index's tests: dicts of folders, with files' content as bytes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager

from ddep.data.image_index import ImageIndex

Tree = dict[str, Any]


class Tar(Tree):
    """A folder that is written as a tar file, its own tars as tars in it."""


def write_tree(folder: Path, tree: Tree) -> None:
    """Write a tree below ``folder``; a :class:`Tar` ``x`` becomes ``x.tar``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        if isinstance(content, Tar):
            (folder / f"{name}.tar").write_bytes(pack(content))
        elif isinstance(content, dict):
            write_tree(folder / name, content)
        else:
            (folder / name).write_bytes(content)


def pack(tree: Tree, **options: Any) -> bytes:
    """A tar file of a tree, in the order of the dict."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **options) as archive:
        _add(archive, "", tree)
    return file.getvalue()


def _add(archive: tarfile.TarFile, prefix: str, tree: Tree) -> None:
    for name, content in tree.items():
        if isinstance(content, Tar):
            add_file(archive, f"{prefix}{name}.tar", pack(content))
        elif isinstance(content, dict):
            folder = tarfile.TarInfo(prefix + name)
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            _add(archive, f"{prefix}{name}/", content)
        else:
            add_file(archive, prefix + name, content)


def add_file(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to a tar file."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def flatten(tree: Tree, prefix: str = "") -> dict[str, bytes]:
    """The content of all files of a tree by their paths, as if no tar file were packed."""
    files: dict[str, bytes] = {}
    for name, content in tree.items():
        if isinstance(content, dict):
            files |= flatten(content, f"{prefix}{name}/")
        else:
            files[prefix + name] = content
    return files


def ids(index: ImageIndex) -> list[str]:
    """The ``image_id`` of all records."""
    return [record["image_id"] for record in index]


def contents(index: ImageIndex) -> dict[str, bytes]:
    """What ``PathManager`` reads of each record, by ``image_id``."""
    found = {}
    for record in index:
        with PathManager.open(record["file_name"], "rb") as file:
            found[record["image_id"]] = file.read()
    return found
