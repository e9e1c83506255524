"""A process with one implementation, which does one step for each line that it reads.

``training_comparison.py`` starts it as ``training_worker.py FOLDER NAME MODE THREADS``, where
``FOLDER/job.pt`` is a :class:`Job` and MODE is ``training`` or ``inference``. It prints one line of
JSON when it is ready, and one for each command: ``step``, ``memory`` or ``floor``.
"""

from __future__ import annotations

import os

# The results go to the standard output; whatever libraries print goes to the standard error.
_results = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import contextlib  # noqa: E402
import functools  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

if sys.argv[2] == "ddep":
    import ddep  # noqa: F401  # before torch

import torch  # noqa: E402

from training_floor import Products  # noqa: E402
from training_peers import (  # noqa: E402
    Implementation,
    Job,
    detectron2_batch,
    detectron2_image,
    huggingface,
    mask2former,
)

# Steps before anything is measured, in which memory is allocated and kernels are compiled.
_WARM_UP = 2
# Losses of equal weights, with points drawn anew.
_LOSSES = 3


def main(folder: str, name: str, mode: str, threads: int) -> None:
    """See the module."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    job = Job(**torch.load(Path(folder, "job.pt"), weights_only=True))
    implementation = _BUILD[name](job)
    losses: list[float] = []
    if mode == "training":
        losses = _losses(job, implementation)
        step = implementation.step
    else:
        implementation.model.eval()
        step = functools.partial(_predict, job, implementation)
    for _ in range(_WARM_UP):
        step()
    _reset_peak(job.device)
    _answer(losses=losses, note=implementation.note)
    for line in sys.stdin:
        command = line.strip()
        if command == "step":
            _answer(seconds=_time(step, job.device))
        elif command == "memory":
            _answer(bytes=_peak(job.device))
        elif command == "floor":
            with Products() as products:
                step()
            floor = products.floor()
            _answer(seconds=floor.seconds, flops=floor.flops)
        else:
            raise ValueError(f"unknown command {command!r}")


def _ours(job: Job) -> Implementation:
    from detectron2.modeling import build_model

    from ddep.engine.execution import prepare_execution
    from ddep.tasks import load_config
    from training_options import make_train_step

    cfg = load_config(str(Path(job.folder, "config.yaml")))
    model = build_model(cfg).train()
    model.load_state_dict(job.weights)
    prepare_execution(cfg, model)
    batch, image = detectron2_batch(job), detectron2_image(job)
    return Implementation(
        model,
        lambda: sum(model(batch).values()),
        make_train_step(cfg, model, batch, job.precision),
        lambda: model([image]),
    )


_BUILD: dict[str, Callable[[Job], Implementation]] = {
    "ddep": _ours,
    "mask2former": mask2former,
    "huggingface": huggingface,
    "huggingface-logits": functools.partial(huggingface, postprocess=False),
}


@torch.no_grad()
def _losses(job: Job, implementation: Implementation) -> list[float]:
    """Losses of the initial weights without dropout and drop path, which are random."""
    random = [m for m in implementation.model.modules() if "Drop" in type(m).__name__]
    for module in random:
        module.eval()
    with job.autocast():
        losses = [implementation.loss().item() for _ in range(_LOSSES)]
    for module in random:
        module.train()
    return losses


@torch.no_grad()
def _predict(job: Job, implementation: Implementation) -> None:
    with job.autocast():
        implementation.predict()


def _time(step: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _reset_peak(device: str) -> None:
    """Start to measure peak memory; where the CPU's cannot be, it counts from the beginning."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: str) -> int:
    """Bytes: on a GPU what PyTorch's allocator held at most, on the CPU what was resident."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text("utf-8").splitlines()
        [peak] = [line.split()[1] for line in lines if line.startswith("VmHWM")]
        return int(peak) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _answer(**values: Any) -> None:
    print(json.dumps(values), file=_results)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:4], int(sys.argv[4]))
