"""The command line of ``datasets/prepare.py``."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

from ddep.data.datasets.catalog import dataset_root
from ddep.data.datasets.declaration import DatasetDeclaration, Preparation, declarations
from ddep.errors import UserError

PROGRAM = "datasets/prepare.py"


def main(arguments: Sequence[str]) -> None:
    """Prepare the data set that the first of ``arguments`` names; without any, list the names.

    Raises:
        UserError: an unknown name, or files that cannot be prepared.
        OSError: a file that cannot be read or written.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_list_names())
        return
    declaration = _find(arguments[0])
    preparation = declaration.preparation
    if preparation is None:
        how = next(iter(declaration.how_to_get.values()))
        raise UserError(
            f"{declaration.name} needs no preparation; {how}, as datasets/README.md shows"
        )
    given = vars(_parser(declaration.name, preparation).parse_args(arguments[1:]))
    folder = given.pop("folder")
    folders = [folder] if preparation.source_help is None else [given.pop("source"), folder]
    print_counts(folder, preparation.prepare(*folders, **given))
    for note in preparation.notes(folder):
        print(note)


def print_counts(folder: Path, counts: Mapping[str, Mapping[str, int]]) -> None:
    """Print what was written, one line per split: ``train: 367 images, 1421 car``."""
    print(f"written to {folder}:")
    for split, numbers in counts.items():
        print(f"  {split}: " + ", ".join(f"{number} {what}" for what, number in numbers.items()))


def _list_names() -> str:
    lines = [
        f"usage: python {PROGRAM} NAME [ARGUMENTS]",
        "",
        f"Prepare a data set. python {PROGRAM} NAME --help shows the arguments for NAME:",
        "",
    ]
    for declaration in declarations():
        if declaration.preparation:
            lines.append(f"  {declaration.name:18}{declaration.preparation.summary}")
    return "\n".join(lines)


def _find(name: str) -> DatasetDeclaration:
    known = {declaration.name: declaration for declaration in declarations()}
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"
    raise UserError(f"unknown data set {name!r}; {hint}")


def _parser(name: str, preparation: Preparation) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {name}", description=f"Prepare {name}: {preparation.summary}."
    )
    if preparation.source_help is not None:
        parser.add_argument("source", metavar="SRC", type=Path, help=preparation.source_help)
    parser.add_argument(
        "folder",
        metavar="FOLDER" if preparation.source_help is None else "DST",
        nargs="?",
        type=Path,
        default=dataset_root() / preparation.folder,
        help=f"{preparation.folder_help} (default: %(default)s)",
    )
    for option, values in preparation.options.items():
        parser.add_argument(
            f"--{option}",
            metavar="N" if isinstance(values.default, int) else "NAME",
            type=type(values.default),
            default=values.default,
            help=f"{values.help} (default: %(default)s)",
        )
    return parser
