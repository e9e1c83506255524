"""Convert a checkpoint file for MODEL.WEIGHTS, and tell what fits."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone

from ddep.checkpoint import read_checkpoint
from ddep.checkpoint.conversion import Conversion, convert
from ddep.checkpoint.groups import TRANSFERABLE, group_of
from ddep.checkpoint.writing import atomic_write
from ddep.config import add_ddep_config
from ddep.errors import UserError


def convert_file(
    source: str, destination: str, format_name: str = "auto", *, overwrite: bool = False
) -> Conversion:
    """Convert ``source`` to ``destination``, and print what matched, is missing and is unused.

    What is missing is found out by building the backbone that the weights describe.

    Args:
        source: a checkpoint that :func:`ddep.checkpoint.read_checkpoint` reads.
        destination: the file to write; its folder is made.
        format_name: a key of :data:`ddep.checkpoint.conversion.FORMATS`, or "auto".
        overwrite: whether an existing ``destination`` is replaced.

    Returns:
        What was written, and where it came from.

    Raises:
        UserError: nothing can be converted, or ``destination`` must not or cannot be written; in
            any case it is as it was.
    """
    if os.path.realpath(destination) == os.path.realpath(source):
        raise UserError(f"DST {destination} is SRC; choose another name")
    if os.path.isdir(destination) or not os.path.basename(destination):
        raise UserError(f"DST {destination} is a folder; name a file in it")
    if os.path.exists(destination) and not overwrite:
        raise UserError(f"DST {destination} exists; choose another name or add --overwrite")
    if not destination.endswith(".pth"):
        print(f"warning: DST {destination} does not end with .pth, which MODEL.WEIGHTS expects")
    conversion = convert(read_checkpoint(source)["model"], format_name)
    missing = _missing(conversion)
    _make_folder(destination)
    _print("matched", (f"{old} -> {new}" for old, new in conversion.matched.items()))
    _print("missing, stays as initialised", missing)
    _print("unused", conversion.unused)
    if conversion.config:
        _print("config keys that fit", (f"{k} {v}" for k, v in conversion.config.items()))
    with atomic_write(destination) as file:
        torch.save({"model": conversion.weights}, file)
    print(f"wrote {destination}: {len(conversion.weights)} weights")
    return conversion


def _make_folder(destination: str) -> None:
    folder = os.path.dirname(os.path.abspath(destination))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"DST {destination} cannot be written: its folder cannot be made ({error.strerror}); "
            "choose another folder"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(
            f"DST {destination} cannot be written: its folder is read-only; choose another folder"
        )


def _missing(conversion: Conversion) -> list[str]:
    """What the model that the weights are for has besides them."""
    if not conversion.config:
        groups = {group_of(name) for name in conversion.weights}
        return [f"every weight of {group}" for group in TRANSFERABLE if group not in groups]
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.merge_from_list([item for pair in conversion.config.items() for item in pair])
    state = build_backbone(cfg).state_dict()
    return conversion.missing({f"backbone.{name}": tuple(t.shape) for name, t in state.items()})


def _print(title: str, lines: Iterable[str]) -> None:
    lines = list(lines)
    print(f"{title} ({len(lines)}):", *lines, sep="\n  ")
