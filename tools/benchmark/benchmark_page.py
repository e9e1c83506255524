"""Write measurements into a Markdown page, one section for each command."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from pathlib import Path

import torch

from ddep.errors import UserError
from ddep.files import atomic_write


def cpu_name() -> str:
    """The processor's name; Python itself only knows the architecture on Linux."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        name = re.search(r"^model name\s*: (.+)$", information.read_text("utf-8"), re.MULTILINE)
        if name:
            return name[1].strip()
    return platform.processor() or platform.machine()


def hardware(device: str) -> str:
    """The GPU, or the processor and PyTorch's threads on it, for titles."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    count = torch.get_num_threads()
    return f"{cpu_name()}, {count} thread{'s' * (count > 1)}"


def parse_size(words: str, option: str = "--sizes") -> tuple[int, int]:
    """The width and height that ``words`` of an option give.

    Raises:
        UserError: it is something else.
    """
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", words):
        raise UserError(f"{option} has '{words}'; expected WIDTHxHEIGHT in pixels, such as 500x375")
    width, height = map(int, words.split("x"))
    return width, height


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}" if value >= 1 else f"{value:.3g}"


def table_line(cells: Iterable[str]) -> str:
    """One line of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def check_output(path: Path) -> None:
    """Raise :class:`UserError` for an unusable path, before minutes of measuring."""
    if path.is_dir():
        raise UserError(f"--output {path} is a folder; expected a Markdown file")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}")


def write_section(path: Path, section: str) -> None:
    """Put a section into a Markdown file, replacing an earlier one with the same first line.

    Raises:
        UserError: the file cannot be read or written.
    """
    title = section.splitlines()[0]
    try:
        text = path.read_text("utf-8") if path.exists() else ""
        parts = re.split(r"^(?=## )", text, flags=re.MULTILINE)
        section = section.rstrip() + "\n"
        for index, part in enumerate(parts):
            if part.splitlines()[:1] == [title]:
                parts[index] = section + ("\n" if index + 1 < len(parts) else "")
                break
        else:
            parts = [*([text.rstrip() + "\n\n"] if text.strip() else []), section]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--output {path} cannot be read: {error}") from error
    with atomic_write(path) as file:
        file.write("".join(parts).encode())
