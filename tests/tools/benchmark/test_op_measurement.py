"""The measurements and the report of the benchmark; ``test_op.py`` runs the script."""

from __future__ import annotations

import dataclasses
import re
import types
from pathlib import Path

import pytest
import torch

import op_measurement
from benchmark_page import write_section
from ddep.errors import UserError
from ddep.ops import extension
from ddep.ops.reference import ms_deform_attn_fused_reference, ms_deform_attn_reference
from op_cases import Case, coordinate_dtype, make_inputs
from op_implementations import load_peer, peer_implementation, run, unfused
from op_measurement import Benchmark, Result, relative_error
from op_memory import available_memory, peak_memory
from op_report import report

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TINY = Case(torch.float32, 32, 2, True)
needs_compiled = pytest.mark.skipif(
    not extension.use_compiled("cpu"), reason="needs the compiled operators"
)


def peer_module(sign: float = 1, dtypes: tuple[torch.dtype, ...] = (torch.float32,)):
    """Kernels with Deformable DETR's signature; ``sign`` -1 negates the gradient of locations."""
    steps = []

    def forward(value, shapes, starts, locations, weights, im2col_step):
        if value.dtype not in dtypes:
            raise RuntimeError(f"\"ms_deform_attn_forward\" not implemented for '{value.dtype}'")
        steps.append(im2col_step)
        return ms_deform_attn_reference(value, shapes, starts, locations, weights)

    def backward(value, shapes, starts, locations, weights, grad_output, im2col_step):
        steps.append(im2col_step)
        leaves = [tensor.detach().requires_grad_() for tensor in (value, locations, weights)]
        with torch.enable_grad():
            output = ms_deform_attn_reference(leaves[0], shapes, starts, *leaves[1:])
        gradients = torch.autograd.grad(output, leaves, grad_output)
        return gradients[0], sign * gradients[1], gradients[2]

    return types.SimpleNamespace(
        ms_deform_attn_forward=forward, ms_deform_attn_backward=backward, steps=steps
    )


def benchmark(peer=None, repeats=2):
    return Benchmark(CPU, repeats, 0.0, peer)


def rows(lines: list[str]) -> list[list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    return [row for row in cells if row[0].isdigit()]


def test_the_problem_is_an_encoder_of_three_levels():
    case = Case(torch.bfloat16, 64, 2, False)
    assert case.shapes == [(8, 8), (4, 4), (2, 2)]
    inputs = make_inputs(case, CPU)
    assert inputs.value.shape == (2, 84, 8, 32)
    assert inputs.value.dtype == inputs.sampling_offsets.dtype == torch.bfloat16
    assert inputs.level_start_index.tolist() == [0, 64, 80]
    assert inputs.attention_logits.shape == (2, 84, 8, 3, 4)
    # the second position is one to the right of the first, the ninth one below it
    assert inputs.reference_points.dtype == torch.float32
    assert inputs.reference_points[1, 1, 2].tolist() == [1.5 / 8, 0.5 / 8]
    assert inputs.reference_points[0, 8, 0].tolist() == [0.5 / 8, 1.5 / 8]
    assert inputs.reference_points[0, 83, 0].tolist() == [1.5 / 2, 1.5 / 2]
    offsets = inputs.sampling_offsets.double()
    assert 0.9 < offsets.std() < 2.1
    assert ((offsets * 16) % 2 == 1).all()


def test_inputs_are_the_same_in_every_run_and_dtype():
    single = make_inputs(TINY, CPU)
    again = make_inputs(TINY, CPU)
    double = make_inputs(dataclasses.replace(TINY, dtype=torch.float64), CPU)
    assert torch.equal(single.value, again.value)
    assert torch.equal(single.value, double.value.float())
    assert torch.equal(single.sampling_offsets.double(), double.sampling_offsets)
    assert double.reference_points.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_least_bytes_are_those_of_the_tensors(dtype):
    inputs = make_inputs(dataclasses.replace(TINY, dtype=dtype), CPU)

    def size(*tensors):
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    leaves = size(inputs.value, inputs.sampling_offsets, inputs.attention_logits)
    forward = leaves + size(inputs.reference_points, inputs.grad_output)
    assert Case(dtype, 32, 2, False).least_bytes == forward
    assert Case(dtype, 32, 2, True).least_bytes == 2 * forward + leaves


def test_peak_memory_counts_what_lives_at_the_same_time():
    def function():
        first = torch.empty(3_000_000, dtype=torch.uint8)
        second = torch.empty(2_000_000, dtype=torch.uint8)
        del first
        return second, torch.empty(500_000, dtype=torch.uint8)

    assert peak_memory(function, CPU) == 5_000_000
    assert peak_memory(lambda: None, CPU) == 0
    assert available_memory(CPU) > 10_000_000


def test_unfused_and_a_peer_are_the_reference():
    inputs = make_inputs(TINY, CPU)
    expected = run(ms_deform_attn_fused_reference, inputs, backward=True)
    assert [tuple(tensor.shape) for tensor in expected] == [
        (2, 21, 256),
        (2, 21, 8, 32),
        (2, 21, 8, 3, 4, 2),
        (2, 21, 8, 3, 4),
    ]
    peer = peer_module()
    for implementation in (unfused, peer_implementation(peer, CPU)):
        for found, reference in zip(run(implementation, inputs, True), expected, strict=True):
            assert relative_error(found, reference) < 1e-5
    assert peer.steps == [2, 2]


def test_relative_error():
    expected = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert relative_error(expected + torch.tensor([0.0, 5e-12]), expected) == pytest.approx(
        1e-12, rel=1e-3
    )


@needs_compiled
def test_every_round_runs_each_once_and_times_are_medians(monkeypatch):
    order = []
    ticks = iter([3.0, 30.0, 20.0, 1.0, 10.0, 40.0, 2.0, 50.0, 60.0])
    subject = benchmark(repeats=5)
    monkeypatch.setattr(subject, "_run", lambda name, inputs, case: order.append(name))

    def clock(function):
        function()
        return next(ticks)

    monkeypatch.setattr(subject, "_time", clock)
    names = ["reference", "unfused", "fused"]
    times = subject._interleaved_times(TINY, None, names)
    # once untimed, then three rounds although no time is left
    assert order == names * 4
    assert times == {"reference": 2.0, "unfused": 30.0, "fused": 40.0}
    assert Result(TINY, times, {}, 0.0).speed_up("fused") == 0.05


@needs_compiled
def test_rows_and_ratios():
    cases = [
        Case(dtype, size, 1, backward)
        for dtype in (torch.float32, torch.bfloat16)
        for size in (32, 64)
        for backward in (False, True)
    ]
    lines = list(report(benchmark(peer_module()), cases, ["python", "tool", "--peer", "a b"]))
    assert lines[0].startswith("## ")
    assert "- command: `python tool --peer 'a b'`" in lines
    assert [line for line in lines if line.startswith("### ")] == ["### float32", "### bfloat16"]
    assert "(the original does not run in bfloat16: " in "".join(lines)
    table = rows(lines)
    passes = ["forward", "forward+backward"]
    assert [row[:3] for row in table] == [
        [size, "1", name] for _ in range(2) for size in ("32", "64") for name in passes
    ]
    for index, row in enumerate(table):
        assert len(row) == 9
        reference = float(re.fullmatch(r"([\d.]+) ms", row[3])[1])
        for cell in row[4:6] if index >= 4 else row[4:7]:
            time, ratio = map(float, re.fullmatch(r"([\d.]+) ms \(([\d.]+)×\)", cell).groups())
            assert ratio == pytest.approx(reference / time, rel=0.03)
        assert (row[6] == "not supported") == (index >= 4)
        memory = row[7].split(" / ")
        assert (memory[3] == "—") == (index >= 4)
        assert float(memory[2]) < float(memory[0])
        assert float(row[8]) <= 1e-2
    # output and gradients of the fused form are new: value, offsets, logits and output
    tokens = 84
    assert float(table[3][7].split(" / ")[2]) * 2**20 > tokens * 4 * (256 + 256 + 3 * 96)


@needs_compiled
def test_bandwidth_is_that_of_the_least_bytes(monkeypatch):
    case = Case(torch.float32, 32, 1, False)
    result = Result(case, {"reference": 2.0, "unfused": 1.0, "fused": 0.5}, {}, 0.0)
    subject = benchmark()
    subject.device = types.SimpleNamespace(type="cuda")
    subject.copy_bandwidth = lambda: 8e9
    subject.measure = lambda cases: [result]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(Case, "least_bytes", property(lambda self: 2e9))
    lines = list(report(subject, [case], ["tool"]))
    assert lines[0] == "## a GPU"
    assert "- copy on the device: 8 GB/s, read and written" in lines
    assert rows(lines)[0][7] == "1 (12%) / 2 (25%) / 4 (50%)"


@needs_compiled
def test_a_wrong_result_stops_the_benchmark():
    with pytest.raises(
        UserError,
        match="wrong result of 'original' in float32 at 32 pixels, batch 2: the gradient of "
        r"offsets has a relative error of 2.0e\+00 against the reference, more than 1e-04",
    ):
        list(benchmark(peer_module(sign=-1)).measure([TINY]))
    with pytest.raises(UserError, match="gradient of offsets has a relative error of nan"):
        list(benchmark(peer_module(sign=float("nan"))).measure([TINY]))


@needs_compiled
def test_a_case_that_does_not_fit_is_reported(monkeypatch):
    small = Case(torch.float32, 64, 1, True)
    monkeypatch.setattr(op_measurement, "available_memory", lambda device: 5 * 2**20)
    lines = list(report(benchmark(), [small, Case(torch.float32, 512, 8, True)], ["tool"]))
    fits, skipped = rows(lines)
    assert fits[3].endswith("ms")
    found = re.fullmatch(r"does not fit into memory: needs ([\d.]+) GiB of 0.0", skipped[3])
    # about 120 MiB at batch 1, as measured
    assert 0.8 < float(found[1]) < 2
    assert skipped[4:] == [""] * 4


@needs_compiled
def test_running_out_of_memory_skips_the_case(monkeypatch):
    subject = benchmark()

    def fail(case, names):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(subject, "_measure", fail)
    (result,) = subject.measure([TINY])
    assert result.skipped == "does not fit into memory"


def test_nothing_to_compare(monkeypatch):
    monkeypatch.setattr(extension, "use_compiled", lambda device_type: False)
    monkeypatch.setattr(extension, "why_not_compiled", lambda device_type: "")
    with pytest.raises(UserError, match="needs the compiled .*, but DDEP_OPS is 'reference'; uns"):
        benchmark()
    monkeypatch.setattr(extension, "why_not_compiled", lambda device_type: "they were not; run it")
    with pytest.raises(UserError, match="timing needs the compiled .*, but they were not; run it$"):
        benchmark()


def test_peers_that_cannot_be_used(monkeypatch):
    with pytest.raises(UserError, match="--peer no_such_kernels cannot be imported: No module"):
        load_peer("no_such_kernels")
    with pytest.raises(UserError, match="--peer math has no ms_deform_attn_forward"):
        load_peer("math")


def test_a_section_replaces_its_predecessor(tmp_path: Path):
    path = tmp_path / "benchmarks.md"
    write_section(path, "## A\n\nold")
    assert path.read_text("utf-8") == "## A\n\nold\n"
    path.write_text("# Title\n\nText.\n\n" + path.read_text("utf-8"), "utf-8")
    write_section(path, "## B\n\n### one\n")
    write_section(path, "## A\n\nnew")
    assert path.read_text("utf-8") == "# Title\n\nText.\n\n## A\n\nnew\n\n## B\n\n### one\n"
    write_section(path, "## B\n\ntwo")
    assert path.read_text("utf-8") == "# Title\n\nText.\n\n## A\n\nnew\n\n## B\n\ntwo\n"
    with pytest.raises(UserError, match=r"none/file\.md cannot be written: No such file"):
        write_section(tmp_path / "none" / "file.md", "## A")


def test_coordinates_are_never_half():
    assert coordinate_dtype(torch.float16) == coordinate_dtype(torch.float32) == torch.float32
