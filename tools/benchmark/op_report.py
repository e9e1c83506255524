"""The report on deformable attention in Markdown: machine, date, and a table for each dtype."""

from __future__ import annotations

import datetime
import importlib
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from benchmark_page import cpu_name, number, table_line
from op_cases import Case, dtype_name
from op_measurement import Benchmark, Result

_WIDTH = 20


def report(benchmark: Benchmark, cases: Iterable[Case], command: list[str]) -> Iterator[str]:
    """Yield the report's lines as they are measured.

    Raises:
        UserError: a result is wrong.
    """
    device = benchmark.device
    yield from _header(device, command)
    copy = benchmark.copy_bandwidth() if device.type == "cuda" else None
    if copy:
        yield f"- copy on the device: {copy / 1e9:.0f} GB/s, read and written"
    names = list(benchmark.implementations)
    dtype = None
    noted = 0
    for result in benchmark.measure(cases):
        if result.case.dtype != dtype:
            dtype = result.case.dtype
            yield ""
            for note in benchmark.notes[noted:]:
                yield from (f"({note})", "")
            noted = len(benchmark.notes)
            yield from _table_head(dtype, names, copy is not None)
        yield _row(result, names, copy)


def _header(device: torch.device, command: list[str]) -> Iterator[str]:
    count = torch.get_num_threads()
    threads = f"{count} thread{'s' * (count > 1)}"
    library = importlib.import_module("ddep._C")
    cuda = torch.version.cuda or "none"
    if device.type == "cuda":
        yield f"## {torch.cuda.get_device_name(device)}"
    else:
        yield f"## {cpu_name()}, {threads}"
    yield ""
    yield f"- date: {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC"
    yield f"- CPU: {cpu_name()}, {threads}, {library.cpu_kernels} kernels"
    yield f"- PyTorch {torch.__version__}, CUDA {cuda}, operators compiled by {_compiler(library)}"
    yield f"- command: `{shlex.join(command)}`"


def _compiler(library: object) -> str:
    """The compiler's note in the library, which not all file formats have."""
    content = Path(library.__file__).read_bytes()
    note = re.search(rb"(?:[\w. ]*clang version|GCC:) [\w.()+~ -]+", content)
    return note[0].decode("ascii").replace("GCC:", "GCC").strip() if note else "an unknown compiler"


def _table_head(dtype: torch.dtype, names: list[str], with_bandwidth: bool) -> Iterator[str]:
    yield f"### {dtype_name(dtype)}"
    yield ""
    together = " / ".join(names)
    columns = ["pixels", "batch", "pass".ljust(16), *(name.ljust(_WIDTH) for name in names)]
    columns.append(f"peak memory, MiB: {together}")
    if with_bandwidth:
        columns.append(f"GB/s (of a copy): {together}")
    columns.append("error")
    yield table_line(columns)
    yield table_line("---" for _ in columns)


def _row(result: Result, names: list[str], copy: float | None) -> str:
    case = result.case
    cells = [
        str(case.size).ljust(6),
        str(case.batch).ljust(5),
        "forward+backward" if case.backward else "forward".ljust(16),
    ]
    if result.skipped:
        cells += [result.skipped, *[""] * (len(names) + 1 + (copy is not None))]
        return table_line(cells)
    for name in names:
        cells.append(_time(result, name).ljust(_WIDTH))
    cells.append(_joined(names, {n: number(b / 2**20) for n, b in result.peak_bytes.items()}))
    if copy:
        cells.append(
            _joined(
                names,
                {
                    name: f"{case.least_bytes / seconds / 1e9:.0f} "
                    f"({case.least_bytes / seconds / copy:.0%})"
                    for name, seconds in result.seconds.items()
                },
            )
        )
    cells.append(f"{result.largest_error:.0e}")
    return table_line(cells)


def _time(result: Result, name: str) -> str:
    if name not in result.seconds:
        return "not supported"
    time = f"{number(result.seconds[name] * 1e3)} ms"
    return time if name == "reference" else f"{time} ({number(result.speed_up(name))}×)"


def _joined(names: list[str], cells: dict[str, str]) -> str:
    return " / ".join(cells.get(name, "—") for name in names)
