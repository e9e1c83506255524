"""Check deformable attention against the reference, then time all implementations in turns."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

import torch

from ddep.errors import UserError, one_line
from ddep.ops import extension
from ddep.ops.ms_deform_attn import ms_deform_attn_fused
from ddep.ops.reference import ms_deform_attn_fused_reference
from op_cases import Case, Inputs, coordinate_dtype, dtype_name, make_inputs
from op_implementations import Implementation, peer_implementation, run, unfused
from op_memory import available_memory, peak_memory

# Largest relative error, norm of the difference over norm, against the reference of the same dtype.
# float32 also has to hold coordinates, and with a half type both sides round.
LARGEST_ERROR = {
    torch.float64: 1e-10,
    torch.float32: 1e-4,
    torch.bfloat16: 1e-2,
    torch.float16: 1e-2,
}
# A median needs at least this many rounds, however long they take.
FEWEST_ROUNDS = 3
# More than any GPU caches. On a GPU, overwritten before every run, so that caches are cold.
_BUFFER_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Result:
    """The measurements of one case by name of the implementation, or why it was skipped."""

    case: Case
    seconds: dict[str, float]
    peak_bytes: dict[str, int]
    largest_error: float
    skipped: str = ""

    def speed_up(self, name: str) -> float:
        """The speed relative to the reference."""
        return self.seconds["reference"] / self.seconds[name]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over norm."""
    dtype = coordinate_dtype(expected.dtype)
    difference = torch.linalg.vector_norm(found.to(dtype) - expected.to(dtype))
    return (difference / torch.linalg.vector_norm(expected.to(dtype))).item()


class Benchmark:
    """Measures cases on one device.

    Args:
        device: a CPU or CUDA device.
        repeats: largest number of timed runs of each implementation.
        seconds: time after which no new round of a case begins, once there were three.
        peer: a module with Deformable DETR's two functions; timed as "original".

    Raises:
        UserError: the compiled operators do not run on this device; says why.
    """

    def __init__(
        self, device: torch.device, repeats: int, seconds: float, peer: ModuleType | None = None
    ) -> None:
        missing = extension.why_not_compiled(device.type)
        if not (missing or extension.use_compiled(device.type)):
            missing = "DDEP_OPS is 'reference'; unset it"
        if missing:
            raise UserError(
                f"timing needs the compiled operators, to compare the reference with, but {missing}"
            )
        self.device = device
        self.repeats = repeats
        self.seconds = seconds
        self.notes: list[str] = []
        self.implementations: dict[str, Implementation] = {
            "reference": ms_deform_attn_fused_reference,
            "unfused": unfused,
            "fused": ms_deform_attn_fused,
        }
        if peer:
            self.implementations["original"] = peer_implementation(peer, device)
        self._buffer = None
        if device.type == "cuda":
            self._buffer = torch.empty(_BUFFER_BYTES, dtype=torch.uint8, device=device)
        # What runs in each dtype, and the memory that it takes per image and position.
        self._names: dict[torch.dtype, list[str]] = {}

    def copy_bandwidth(self) -> float:
        """Bytes per second, read and written, of a copy on the device."""
        target = torch.empty_like(self._buffer)
        times = [self._time(lambda: target.copy_(self._buffer)) for _ in range(23)]
        return 2 * _BUFFER_BYTES / statistics.median(times[3:])

    def measure(self, cases: Iterable[Case]) -> Iterator[Result]:
        """Check and time every implementation that runs in the case's dtype.

        Raises:
            UserError: a result is not the reference's.
        """
        for case in cases:
            names = self._supported(case.dtype)
            skipped = self._why_too_large(case, names)
            result = None
            if not skipped:
                try:
                    result = self._measure(case, names)
                except torch.cuda.OutOfMemoryError:
                    skipped = "does not fit into memory"
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            yield result or Result(case, {}, {}, 0.0, skipped)

    def _measure(self, case: Case, names: list[str]) -> Result:
        inputs = make_inputs(case, self.device)
        error = self._check(case, inputs, names)
        peak_bytes = {
            name: peak_memory(lambda name=name: self._run(name, inputs, case), self.device)
            for name in names
        }
        seconds = self._interleaved_times(case, inputs, names)
        return Result(case, seconds, peak_bytes, error)

    def _run(self, name: str, inputs: Inputs, case: Case) -> list[torch.Tensor]:
        return run(self.implementations[name], inputs, case.backward)

    def _interleaved_times(self, case: Case, inputs: Inputs, names: list[str]) -> dict[str, float]:
        """Median times; every round runs each once, so that drift affects all alike."""
        times: dict[str, list[float]] = {name: [] for name in names}
        for name in names:
            self._run(name, inputs, case)
        end = time.perf_counter() + self.seconds
        for done in range(self.repeats):
            if done >= FEWEST_ROUNDS and time.perf_counter() > end:
                break
            for name in names:
                times[name].append(self._time(lambda name=name: self._run(name, inputs, case)))
        return {name: statistics.median(values) for name, values in times.items()}

    def _time(self, function: Callable[[], object]) -> float:
        """Seconds of one run, on the device's own clock if it has one."""
        if self.device.type == "cpu":
            start = time.perf_counter()
            function()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self._buffer.zero_()
        begin.record()
        function()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3

    def _check(self, case: Case, inputs: Inputs, names: list[str]) -> float:
        """Return the largest relative error of outputs and gradients against the reference's."""
        what = ("output", "gradient of value", "gradient of offsets", "gradient of logits")
        expected = self._run("reference", inputs, case)
        largest = 0.0
        for name in names[1:]:
            found = self._run(name, inputs, case)
            for part, ours, reference in zip(what, found, expected, strict=False):
                error = relative_error(ours, reference)
                # Written so that NaN counts as wrong.
                if not error <= LARGEST_ERROR[case.dtype]:
                    raise UserError(
                        f"wrong result of '{name}' in {dtype_name(case.dtype)} at {case.size} "
                        f"pixels, batch {case.batch}: the {part} has a relative error of "
                        f"{error:.1e} against the reference, more than "
                        f"{LARGEST_ERROR[case.dtype]:.0e}"
                    )
                largest = max(largest, error)
        return largest

    def _supported(self, dtype: torch.dtype) -> list[str]:
        """The implementations that run in this dtype; a peer that does not is noted."""
        if dtype not in self._names:
            names = list(self.implementations)
            if "original" in names:
                tiny = Case(dtype, 32, 1, True)
                try:
                    self._run("original", make_inputs(tiny, self.device), tiny)
                except RuntimeError as error:
                    names.remove("original")
                    self.notes.append(
                        f"the original does not run in {dtype_name(dtype)}: {one_line(error)}"
                    )
            self._names[dtype] = names
        return self._names[dtype]

    def _why_too_large(self, case: Case, names: list[str]) -> str:
        """Predict whether a case needs too much memory, for which a system may kill the process.

        Memory grows with images times positions, so a small problem suffices.
        """
        small = Case(case.dtype, 64, 1, case.backward)
        inputs = make_inputs(small, self.device)
        peak = max(
            peak_memory(lambda name=name: self._run(name, inputs, small), self.device)
            for name in names
        )
        # Beside one run: the inputs, and the reference's results while others are compared.
        needed = peak + 2 * small.least_bytes
        needed *= case.batch * case.positions / small.positions
        available = available_memory(self.device)
        if needed <= available:
            return ""
        return (
            f"does not fit into memory: needs {needed / 2**30:.1f} GiB of {available / 2**30:.1f}"
        )
