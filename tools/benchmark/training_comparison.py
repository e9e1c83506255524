"""Compare this project with other implementations of Mask2Former.

Each has a process of its own, ``training_worker.py``; they get equal weights and images and take
turns.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from benchmark_page import number, table_line
from ddep.engine.optimizer import max_grad_norm
from ddep.errors import UserError
from ddep.export.huggingface_model import to_hugging_face
from training_floor import Floor
from training_options import make_batch

# What training_worker.py calls this project.
OURS = "ddep"
_WORKER = Path(__file__).with_name("training_worker.py")
NAMES = {
    OURS: "this project",
    "onnx": "ONNX Runtime",
    "mask2former": "Mask2Former",
    "huggingface": "Hugging Face",
    "huggingface-logits": "Hugging Face, logits only",
}
# Does less than the others: the summary leaves it out.
_PARTIAL = "huggingface-logits"
_REQUIRED = {
    "MODEL.META_ARCHITECTURE": "MaskFormer",
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
}


@dataclass(frozen=True)
class Measurements:
    """Of one implementation.

    Attributes:
        seconds: of each timed step.
        memory_bytes: the peak in these steps: of the process, or on a GPU of PyTorch's tensors.
        losses: of the initial weights, with random points drawn anew; empty in inference.
        note: what the report has to say about the implementation.
    """

    seconds: Sequence[float]
    memory_bytes: int
    losses: Sequence[float]
    note: str

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Comparison:
    """Measurements by implementation, :data:`OURS` first, and the floor of ours."""

    measurements: Mapping[str, Measurements]
    floor: Floor


def parse_peers(words: Sequence[str]) -> dict[str, str]:
    """The peers of ``--peer``, with the path of Mask2Former's checkout.

    Raises:
        UserError: an unknown peer, one without what it needs, or the same peer twice.
    """
    peers: dict[str, str] = {}
    for word in words:
        name, _, path = word.partition("=")
        if name not in ("mask2former", "huggingface") or (name == "huggingface" and path):
            raise UserError(f"--peer is '{word}'; expected mask2former=PATH or huggingface")
        if name in peers:
            raise UserError(f"--peer {name} is given twice")
        peers[name] = path
    if "mask2former" in peers:
        checkout = Path(peers["mask2former"])
        if not peers["mask2former"] or not (checkout / "mask2former" / "config.py").is_file():
            raise UserError(
                f"--peer mask2former={peers['mask2former']}: there is no mask2former/config.py; "
                "expected a checkout of github.com/facebookresearch/Mask2Former"
            )
        peers["mask2former"] = str(checkout.resolve())
    if "huggingface" in peers and importlib.util.find_spec("transformers") is None:
        raise UserError("--peer huggingface: transformers is not installed; install it with pip")
    return peers


def check_comparable(cfg: CfgNode) -> None:
    """Raise :class:`UserError` if ``cfg`` is not for a Mask2Former."""
    for key, expected in _REQUIRED.items():
        found = reduce(CfgNode.__getitem__, key.split("."), cfg)
        if found != expected:
            raise UserError(f"{key} is {found}; --peer compares Mask2Former, with {expected}")


def compare(
    cfg: CfgNode,
    peers: Mapping[str, str],
    *,
    image_size: int,
    batch_size: int,
    inference_size: int,
    rounds: int,
    precision: str,
) -> dict[str, Comparison]:
    """Measure training and inference of ours and of ``peers``, with equal weights and images.

    Args:
        cfg: see :func:`check_comparable`.
        peers: see :func:`parse_peers`.
        image_size, batch_size: of the training batch, see :func:`make_batch`.
        inference_size: height and width of the image that is predicted.
        rounds: timed steps of each implementation.
        precision: of autocast, a name of a torch dtype.

    Returns:
        The comparison of ``training`` and that of ``inference``.

    Raises:
        UserError: a peer cannot express the model, or fails.
    """
    training = [OURS, *peers]
    inference = [*training, *([_PARTIAL] if "huggingface" in peers else [])]
    with tempfile.TemporaryDirectory() as folder:
        job = write_model(Path(folder), cfg, peers, precision)
        batch = make_batch(cfg, image_size, batch_size)
        [predicted] = make_batch(cfg, inference_size, 1)
        job |= {
            "images": [inputs["image"] for inputs in batch],
            "classes": [inputs["instances"].gt_classes for inputs in batch],
            "masks": [inputs["instances"].gt_masks for inputs in batch],
            "predicted": [predicted["image"]],
        }
        torch.save(job, Path(folder, "job.pt"))
        return {
            "training": _take_turns(folder, training, "training", rounds),
            "inference": _take_turns(folder, inference, "inference", rounds),
        }


def write_model(
    folder: Path, cfg: CfgNode, peers: Mapping[str, str], precision: str
) -> dict[str, Any]:
    """Write a model with random weights for workers.

    Args:
        folder: an existing one, for :class:`Job`.
        cfg, peers, precision: see :func:`compare`.

    Returns:
        The attributes of a :class:`Job` without its images.

    Raises:
        UserError: a peer cannot express the model.
    """
    (folder / "config.yaml").write_text(cfg.dump(), "utf-8")
    on_cpu = cfg.clone()
    on_cpu.defrost()
    on_cpu.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    model = build_model(on_cpu)
    weights = model.state_dict()
    torch.save(weights, folder / "weights.pt")
    if "huggingface" in peers:
        (folder / "huggingface").mkdir()
        to_hugging_face(weights, cfg).write(str(folder / "huggingface"))
    return {
        "folder": str(folder),
        "checkout": peers.get("mask2former", ""),
        "device": cfg.MODEL.DEVICE,
        "precision": precision,
        "max_grad_norm": max_grad_norm(cfg),
        "thing_ids": sorted(model.thing_ids),
    }


def _take_turns(folder: str, names: Sequence[str], mode: str, rounds: int) -> Comparison:
    with contextlib.ExitStack() as stack:
        # They get ready side by side. Peers come first: what is wrong with them shows early.
        workers = {
            name: stack.enter_context(Worker(folder, name, mode)) for name in reversed(names)
        }
        ready = {name: worker.wait() for name, worker in workers.items()}
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, worker in workers.items():
                seconds[name].append(worker.ask("step")["seconds"])
        measurements = {
            name: Measurements(
                seconds[name],
                workers[name].ask("memory")["bytes"],
                ready[name]["losses"],
                ready[name]["note"],
            )
            for name in names
        }
        return Comparison(measurements, Floor(**workers[OURS].ask("floor")))


class Worker(contextlib.AbstractContextManager):
    """A process of ``training_worker.py``."""

    def __init__(self, folder: str, name: str, mode: str) -> None:
        """Start it; the arguments are the program's. It has to be waited for before it is asked.

        Its environment is this process's, and with it OpenMP's settings, which ``ddep`` made.
        """
        self._name = name
        self._log = Path(folder, f"{mode}-{name}.log")
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(_WORKER), folder, name, mode, str(torch.get_num_threads())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
            )

    def wait(self) -> dict[str, Any]:
        """Return what it says when it is ready."""
        return self._answer()

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for the answer."""
        with contextlib.suppress(BrokenPipeError):  # the answer will be missing
            self._process.stdin.write(command + "\n")
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            lines = self._log.read_text("utf-8", "replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "it wrote nothing")
            status = self._process.returncode
            raise UserError(f"{NAMES[self._name]} ended with status {status}: {last}")
        return json.loads(line)

    def __exit__(self, *details: object) -> None:
        self._process.kill()
        self._process.communicate()


def report(comparisons: Mapping[str, Comparison], sizes: Mapping[str, str]) -> Iterator[str]:
    """Lines of Markdown: a table for training and one for inference.

    Args:
        comparisons: see :func:`compare`.
        sizes: of the images, for each of them.
    """
    for mode, comparison in comparisons.items():
        yield f"### {mode.capitalize()}, {sizes[mode]}"
        yield ""
        yield from _table(comparison)
        yield ""
        yield from _summary(comparison)
        yield ""


def _table(comparison: Comparison) -> Iterator[str]:
    ours = comparison.measurements[OURS]
    columns = ["implementation", "median, ms", "fastest, ms", "of ours", "peak memory, MiB"]
    columns += ["of ours", *(["loss"] if ours.losses else [])]
    yield table_line(columns)
    yield table_line("---" for _ in columns)
    for name, found in comparison.measurements.items():
        cells = [
            NAMES[name],
            number(1000 * found.median),
            number(1000 * min(found.seconds)),
            f"{number(found.median / ours.median)}×",
            number(found.memory_bytes / 2**20),
            f"{number(found.memory_bytes / ours.memory_bytes)}×",
        ]
        if found.losses:
            cells.append(f"{min(found.losses):.2f} to {max(found.losses):.2f}")
        yield table_line(cells)


def _summary(comparison: Comparison) -> Iterator[str]:
    ours = comparison.measurements[OURS]
    peers = [m for name, m in comparison.measurements.items() if name not in (OURS, _PARTIAL)]
    fastest = min(peer.median for peer in peers)
    smallest = min(peer.memory_bytes for peer in peers)
    floor = comparison.floor
    yield f"- this project's part of the faster peer's time: {ours.median / fastest:.2f}"
    yield f"- this project's part of the smaller peer's memory: {ours.memory_bytes / smallest:.2f}"
    yield (
        f"- floor, its matrix products and convolutions alone: {number(1000 * floor.seconds)} ms, "
        f"{floor.seconds / ours.median:.0%} of its median; {number(floor.flops / 1e9)} GFLOP at "
        f"{number(floor.flops / floor.seconds / 1e9)} GFLOP/s"
    )
    for found in comparison.measurements.values():
        if found.note:
            yield f"- {found.note}"
