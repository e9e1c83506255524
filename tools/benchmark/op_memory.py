"""The memory that tensors take while a function runs, and the memory that is left."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch


def peak_memory(function: Callable[[], object], device: torch.device) -> int:
    """Return the peak of the bytes that ``function`` allocates for tensors on ``device``.

    Results count. On CUDA, PyTorch's allocator knows the peak; on the CPU, PyTorch's profiler
    records the allocation of every tensor, and memory that a kernel takes otherwise does not count.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        function()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text("utf-8"))["traceEvents"]
    taken = peak = 0
    for event in sorted((e for e in events if e["name"] == "[memory]"), key=lambda e: e["ts"]):
        taken += event["args"]["Bytes"]
        peak = max(peak, taken)
    return peak


def available_memory(device: torch.device) -> int:
    """Return the number of bytes that this process can still allocate on ``device``."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    memory = Path("/proc/meminfo")
    if memory.is_file():
        kibibytes = re.search(r"^MemAvailable: *(\d+) kB$", memory.read_text("ascii"), re.MULTILINE)
        return int(kibibytes[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
