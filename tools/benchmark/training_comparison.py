"""Compare this project with others: a process for each, and all take turns."""

from __future__ import annotations

import importlib.util
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
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

OURS = "ddep"
_WORKER = Path(__file__).with_name("training_worker.py")
_NAMES = {
    OURS: "this project",
    "mask2former": "Mask2Former",
    "huggingface": "Hugging Face",
    "huggingface-logits": "Hugging Face, logits only",
}

# Not what the others do, so that nothing is compared with it in the summary.
_PARTIAL = ("huggingface-logits",)


@dataclass(frozen=True)
class Measurements:
    """Of one implementation.

    Attributes:
        seconds: of each timed step.
        memory_bytes: the process's peak in these steps.
        losses: of the initial weights, with random points drawn anew; empty in inference.
        note: what the report has to say about the implementation.
    """

    seconds: Sequence[float]
    memory_bytes: int
    losses: Sequence[float]
    note: str

    @property
    def median(self) -> float:
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
    """Raise :class:`UserError` if ``cfg`` is not Mask2Former's model."""
    expected = {
        "MODEL.META_ARCHITECTURE": "MaskFormer",
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
    }
    for key, value in expected.items():
        found = cfg
        for part in key.split("."):
            found = found[part]
        if found != value:
            raise UserError(f"{key} is {found}; --peer compares Mask2Former, which has {value}")


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
        cfg: of a segmentation model; all of it is trained.
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
    with tempfile.TemporaryDirectory() as folder:
        _write_job(Path(folder), cfg, peers, image_size, batch_size, inference_size, precision)
        training = [OURS, *peers]
        inference = [*training, *(["huggingface-logits"] if "huggingface" in peers else [])]
        return {
            "training": _take_turns(folder, training, "training", rounds),
            "inference": _take_turns(folder, inference, "inference", rounds),
        }


def _write_job(
    folder: Path,
    cfg: CfgNode,
    peers: Mapping[str, str],
    image_size: int,
    batch_size: int,
    inference_size: int,
    precision: str,
) -> None:
    """Write what :class:`training_peers.Job` describes."""
    (folder / "config.yaml").write_text(cfg.dump(), "utf-8")
    device = cfg.MODEL.DEVICE
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(0)
    model = build_model(cfg)
    weights = model.state_dict()
    torch.save(weights, folder / "weights.pt")
    if "huggingface" in peers:
        (folder / "huggingface").mkdir()
        to_hugging_face(weights, cfg).write(str(folder / "huggingface"))
    batch = make_batch(cfg, image_size, batch_size)
    [image] = make_batch(cfg, inference_size, 1)
    job = {
        "folder": str(folder),
        "checkout": peers.get("mask2former", ""),
        "device": device,
        "precision": precision,
        "max_grad_norm": max_grad_norm(cfg),
        "thing_ids": sorted(model.thing_ids),
        "images": [inputs["image"] for inputs in batch],
        "classes": [inputs["instances"].gt_classes for inputs in batch],
        "masks": [inputs["instances"].gt_masks for inputs in batch],
        "image": image["image"],
    }
    torch.save(job, folder / "job.pt")


def _take_turns(folder: str, names: Sequence[str], mode: str, rounds: int) -> Comparison:
    with ExitStack() as stack:
        workers = {name: stack.enter_context(_Worker(folder, name, mode)) for name in names}
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, worker in workers.items():
                seconds[name].append(worker.ask("step")["seconds"])
        measurements = {
            name: Measurements(
                seconds[name],
                worker.ask("memory")["bytes"],
                worker.ready["losses"],
                worker.ready["note"],
            )
            for name, worker in workers.items()
        }
        return Comparison(measurements, Floor(**workers[OURS].ask("floor")))


class _Worker(AbstractContextManager):
    """A process of ``training_worker.py``.

    Attributes:
        ready: what it said when it was ready.
    """

    def __init__(self, folder: str, name: str, mode: str) -> None:
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
        try:
            self.ready = self._answer()
        except BaseException:
            self.__exit__()
            raise

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for the answer."""
        self._process.stdin.write(command + "\n")
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            lines = self._log.read_text("utf-8", "replace").split("\n")
            last = next((line for line in reversed(lines) if line.strip()), "it wrote nothing")
            status = self._process.returncode
            raise UserError(f"{_NAMES[self._name]} ended with status {status}: {last}")
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
        yield ""
        yield f"### {mode.capitalize()}, {sizes[mode]}"
        yield ""
        yield from _table(comparison)
        yield ""
        yield from _summary(comparison)


def _table(comparison: Comparison) -> Iterator[str]:
    ours = comparison.measurements[OURS]
    columns = ["implementation", "median, ms", "fastest, ms", "of ours", "peak memory, MiB"]
    columns += ["of ours", *(["loss"] if ours.losses else [])]
    yield table_line(columns)
    yield table_line("---" for _ in columns)
    for name, found in comparison.measurements.items():
        cells = [
            _NAMES[name],
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
    complete = {n: found for n, found in comparison.measurements.items() if n not in _PARTIAL}
    peers = [found for name, found in complete.items() if name != OURS]
    fastest = min((peer.median for peer in peers), default=math.nan)
    smallest = min((peer.memory_bytes for peer in peers), default=math.nan)
    floor = comparison.floor
    yield f"- ours, of the faster peer's time: {ours.median / fastest:.2f}"
    yield f"- ours, of the smaller peer's memory: {ours.memory_bytes / smallest:.2f}"
    yield (
        f"- floor, our matrix products and convolutions alone: {number(1000 * floor.seconds)} ms, "
        f"{floor.seconds / ours.median:.0%} of our median; {number(floor.flops / 1e9)} GFLOP at "
        f"{number(floor.flops / floor.seconds / 1e9)} GFLOP/s"
    )
    for found in comparison.measurements.values():
        if found.note:
            yield f"- {found.note}"
