"""Time predictions of a model in several variants and of its peers, each in its own process."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from ddep.errors import UserError
from ddep.export.to_onnx import export_to_onnx
from training_comparison import NAMES, OURS, Worker, write_model
from training_options import make_batch

_ONNX = "onnx"
# Height and width of the image that workers train on, which these do not.
_TRAINED = 64


@dataclass(frozen=True)
class Variant:
    """A way to run this project's models.

    Attributes:
        name: for the report.
        keys: of the config, on top.
        precision: of autocast, a name of a torch dtype.
        worker: what ``training_worker.py`` calls the implementation.
    """

    name: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    worker: str = OURS


BASELINE = Variant("float32")
VARIANTS = (
    Variant("bfloat16", precision="bfloat16"),
    Variant("channels-last", {"MODEL.DDEP.CHANNELS_LAST": True}),
    Variant("compile", {"MODEL.DDEP.COMPILE": True}),
    Variant("onnx", worker=_ONNX),
)


@dataclass(frozen=True)
class Prediction:
    """Measurements of one implementation.

    Attributes:
        seconds: of a batch, from 8-bit pixels to all results; the median.
        network_seconds: of these until post-processing began; the median.
        of_baseline: ``seconds``, relative to those of :data:`BASELINE` in the same rounds.
        memory_bytes: the peak: of the process, or on a GPU of PyTorch's tensors.
    """

    seconds: float
    network_seconds: float
    of_baseline: float
    memory_bytes: int


def measure(
    cfg: CfgNode,
    variants: Sequence[Variant],
    peers: Mapping[str, str],
    *,
    size: tuple[int, int],
    batch_size: int,
    rounds: int,
) -> Iterator[tuple[str, Prediction | UserError]]:
    """Measure a batch's prediction: the baseline, the variants and the peers.

    Two processes exist at a time, because all of them may not fit the memory: the baseline's, and
    another with which it takes turns.

    Args:
        cfg: the model; its weights are random, and equal for all.
        variants: of this project's model.
        peers: see :func:`training_comparison.parse_peers`.
        size: width and height of the images.
        batch_size: images at once.
        rounds: timed predictions of the baseline and another.

    Yields:
        A name and its measurements, or what went wrong.

    Raises:
        UserError: the model cannot be expressed by a peer, or the baseline fails.
    """
    with tempfile.TemporaryDirectory() as parent:
        baseline = _write_job(Path(parent), cfg, BASELINE, peers, size, batch_size)
        with Worker(baseline, OURS, "inference") as first:
            first.wait()
            yield BASELINE.name, _take_turns(first, None, rounds)
            for variant in variants:
                try:
                    folder = _write_job(Path(parent), cfg, variant, {}, size, batch_size)
                except UserError as error:
                    yield variant.name, error
                else:
                    yield variant.name, _beside(first, folder, variant.worker, rounds)
            for peer in peers:
                yield NAMES[peer], _beside(first, baseline, peer, rounds)


def _write_job(
    parent: Path,
    cfg: CfgNode,
    variant: Variant,
    peers: Mapping[str, str],
    size: tuple[int, int],
    batch_size: int,
) -> str:
    """Write what a worker reads into a new folder below ``parent``."""
    cfg = cfg.clone()
    cfg.defrost()
    for key, value in variant.keys.items():
        cfg.merge_from_list([key, value])
    folder = parent / variant.name
    folder.mkdir()
    job = write_model(folder, cfg, peers, variant.precision)
    [trained] = make_batch(cfg, _TRAINED, 1)
    width, height = size
    generator = torch.Generator().manual_seed(0)
    shape = (batch_size, 3, height, width)
    job |= {
        "images": [trained["image"]],
        "classes": [trained["instances"].gt_classes],
        "masks": [trained["instances"].gt_masks],
        "predicted": list(torch.randint(256, shape, dtype=torch.uint8, generator=generator)),
    }
    torch.save(job, folder / "job.pt")
    if variant.worker == _ONNX:
        _export(cfg, folder)
    return str(folder)


def _export(cfg: CfgNode, folder: Path) -> None:
    """Write ``model.onnx``, which takes images of any size, beside ``weights.pt``."""
    if cfg.MODEL.DEVICE != "cpu":
        raise UserError(f"ONNX Runtime is measured on the CPU, not on {cfg.MODEL.DEVICE}")
    model = build_model(cfg)
    model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    export_to_onnx(cfg, model, str(folder / "model.onnx"), post_processing=False)


def _beside(baseline: Worker, folder: str, name: str, rounds: int) -> Prediction | UserError:
    try:
        with Worker(folder, name, "inference") as worker:
            worker.wait()
            return _take_turns(baseline, worker, rounds)
    except UserError as error:
        return error


def _take_turns(baseline: Worker, other: Worker | None, rounds: int) -> Prediction:
    """Measure ``other``, or the baseline if there is none, in turns with the baseline."""
    workers = [baseline] if other is None else [baseline, other]
    seconds: list[list[float]] = [[] for _ in workers]
    network_seconds = []
    for _ in range(rounds):
        for worker, found in zip(workers, seconds, strict=True):
            found.append(worker.ask("step")["seconds"])
        network_seconds.append(workers[-1].ask("network")["seconds"])
    medians = [statistics.median(found) for found in seconds]
    return Prediction(
        medians[-1],
        statistics.median(network_seconds),
        medians[-1] / medians[0],
        workers[-1].ask("memory")["bytes"],
    )
