"""A process with one implementation, which does one step for each line that it reads.

``training_comparison.py`` starts it as ``training_worker.py FOLDER NAME MODE THREADS``, where
``FOLDER/job.pt`` has the attributes of a :class:`Job` and MODE is ``training`` or ``inference``. It
prints one line of JSON when it is ready, and one for each command:

- ``step``: ``seconds`` of a training step or a prediction
- ``network``: ``seconds`` of the last prediction until post-processing began
- ``memory``: ``bytes``, the peak since it was ready
- ``floor``: ``seconds`` and ``flops``, see :class:`Floor`
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from peak_memory import peak, reset_peak
from training_floor import Products
from training_job import Implementation, Job, detectron2_batch, detectron2_images
from training_peers import huggingface, mask2former

# Steps before anything is measured, in which memory is allocated and kernels are compiled.
_WARM_UP = 2
# Losses of equal weights, with points drawn anew.
_LOSSES = 3


def main(folder: str, name: str, mode: str, threads: int) -> None:
    """See the module."""
    # Whatever libraries print goes to the standard error.
    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=results)

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    job = Job(**torch.load(Path(folder, "job.pt"), weights_only=True))
    implementation = _BUILD[name](job)
    losses: list[float] = []
    step = implementation.step
    if mode == "training":
        losses = _losses(job, implementation)
    else:
        implementation.model.eval()
        step = _Prediction(job, implementation)
    for _ in range(_WARM_UP):
        step()
    reset_peak(job.device)
    answer(losses=losses, note=implementation.note)
    for line in sys.stdin:
        command = line.strip()
        if command == "step":
            answer(seconds=_time(step, job.device))
        elif command == "network":
            answer(seconds=step.network_seconds)
        elif command == "memory":
            answer(bytes=peak(job.device))
        elif command == "floor":
            with Products() as products:
                step()
            answer(**dataclasses.asdict(products.floor()))
        else:
            raise ValueError(f"unknown command {command!r}")


def _ours(job: Job) -> Implementation:
    # Not in the peers' processes, see training_peers.py.
    from detectron2.modeling import build_model

    from ddep.engine.execution import prepare_execution
    from ddep.ops.extension import use_compiled
    from ddep.tasks import load_config
    from training_options import make_train_step

    cfg = load_config(str(Path(job.folder, "config.yaml")))
    model = build_model(cfg).train()
    model.load_state_dict(job.load_weights())
    prepare_execution(cfg, model)
    batch, images = detectron2_batch(job), detectron2_images(job)
    compiled = use_compiled(job.device)

    def predict(network_done: Callable[[], None]) -> object:
        logits = model.predict_logits(images)
        network_done()
        return [model.results(of_image) for of_image in logits]

    return Implementation(
        model,
        lambda: sum(model(batch).values()),
        make_train_step(cfg, model, batch, job.precision),
        predict,
        f"this project runs its operators {'compiled' if compiled else 'in plain PyTorch'}",
    )


def _onnx(job: Job) -> Implementation:
    """Our predictions with the network of ``model.onnx``, in the job's folder, in ONNX Runtime."""
    from ddep.export.exported_model import ExportedModel
    from ddep.modeling.meta_arch.mask_former import MaskLogits

    ours = _ours(job)
    network = ExportedModel(Path(job.folder, "model.onnx"))
    images = torch.stack(job.predicted)
    size = tuple(images.shape[-2:])
    unit = network.description["size_divisibility"]
    padded_size = tuple(-(-side // unit) * unit for side in size)

    def predict(network_done: Callable[[], None]) -> object:
        outputs = network(images=images.float())
        network_done()
        return [
            ours.model.results(MaskLogits(*logits, padded_size, size, size))
            for logits in zip(outputs["pred_logits"], outputs["pred_masks"], strict=True)
        ]

    return dataclasses.replace(ours, predict=predict)


_BUILD: dict[str, Callable[[Job], Implementation]] = {
    "ddep": _ours,
    "onnx": _onnx,
    "mask2former": mask2former,
    "huggingface": huggingface,
    "huggingface-logits": functools.partial(huggingface, postprocess=False),
}


@torch.no_grad()
def _losses(job: Job, implementation: Implementation) -> list[float]:
    """Losses of the initial weights, without dropout and drop path: points alone are random."""
    dropping = [m for m in implementation.model.modules() if "Drop" in type(m).__name__]
    for module in dropping:
        module.eval()
    with job.autocast():
        losses = [implementation.loss().item() for _ in range(_LOSSES)]
    for module in dropping:
        module.train()
    return losses


class _Prediction:
    """Predicts the job's batch, and remembers the seconds until post-processing began."""

    network_seconds = 0.0

    def __init__(self, job: Job, implementation: Implementation) -> None:
        self._job, self._predict = job, implementation.predict

    @torch.no_grad()
    def __call__(self) -> None:
        self._start = time.perf_counter()
        with self._job.autocast():
            self._predict(self._network_done)

    def _network_done(self) -> None:
        if self._job.device == "cuda":
            torch.cuda.synchronize()
        self.network_seconds = time.perf_counter() - self._start


def _time(step: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
