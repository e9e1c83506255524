from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from ddep.ops.extension import use_compiled

ROOT = Path(__file__).parents[3]
TINY = ["--sizes", "32", "--batches", "1", "--dtypes", "float32", "--repeats", "1"]


def time_op(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """Run the tool in this process, and undo what it sets."""
    monkeypatch.setenv("DDEP_OPS", "")
    monkeypatch.setenv("KINETO_LOG_LEVEL", "99")
    monkeypatch.setattr(sys, "argv", ["tools/benchmark/op.py", *map(str, words)])
    runpy.run_path(str(ROOT / "tools" / "benchmark" / "op.py"), run_name="__main__")


@pytest.mark.skipif(not use_compiled("cpu"), reason="needs the compiled operators")
def test_output_is_what_is_printed(monkeypatch, tmp_path, capsys):
    threads = torch.get_num_threads()
    path = tmp_path / "benchmarks.md"
    path.write_text("# Times\n", "utf-8")
    try:
        time_op(monkeypatch, *TINY, "--threads", 1, "--output", path)
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert path.read_text("utf-8") == f"# Times\n\n{printed}"
    assert re.search(r"^## .+, 1 thread$", printed, re.MULTILINE)
    assert re.search(r"^\| 32 +\| 1 +\| forward\+backward \|", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dtypes", "int8"], "--dtypes has 'int8'; expected float64, float32, bfloat16, float16"),
        (["--sizes", "256", "250"], "--sizes has 250; expected multiples of 32"),
        (["--batches", "0"], "--batches is 0; expected 1 or more"),
        (["--threads", "0"], "--threads is 0; expected 1 or more"),
        (["--threads", "100000"], "--threads is 100000; expected "),
        (["--seconds", "0"], "--seconds is 0; expected more than 0"),
        (["--seconds", "-1"], "--seconds is -1; expected more than 0"),
        (["--seconds", "nan"], "--seconds is nan; expected more than 0"),
        (["--device", "meta"], "--device is 'meta'; expected cpu, cuda or cuda:N"),
        (["--device", "abacus"], "--device is 'abacus': "),
        (["--device", "cuda:99"], "--device is 'cuda:99', but "),
        (["--output", "no-such-folder/a.md"], "there is no folder no-such-folder"),
        (["--output", "."], "--output . is a folder"),
        (["--peer", "no_such_kernels"], "--peer no_such_kernels cannot be imported"),
    ],
)
def test_mistakes_are_one_line(monkeypatch, words, message):
    with pytest.raises(SystemExit) as end:
        time_op(monkeypatch, *words)
    assert end.value.code.startswith("error: ")
    assert message in end.value.code
    assert "\n" not in end.value.code


def test_a_gpu_has_a_number(monkeypatch):
    """Without one, PyTorch refuses to select it."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    tool = runpy.run_path(str(ROOT / "tools" / "benchmark" / "op.py"))
    assert tool["_device"]("cuda") == torch.device("cuda", 0)
    assert tool["_device"]("cuda:1") == torch.device("cuda", 1)
    assert tool["_device"]("cpu") == torch.device("cpu")
