"""Measure the memory of clips and videos of different lengths, each in its own process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import Tensor, nn

from ddep.engine.execution import prepare_execution
from peak_memory import peak, reset_peak

# Objects in a clip.
_OBJECTS = 5
PARTS = ("training clip", "clip", "video")


def measure(cfg: CfgNode, part: str, frames: int, size: tuple[int, int], threads: int) -> int:
    """Measure one step with a model of random weights and random frames.

    Args:
        cfg: of a VideoMaskFormer.
        part: ``training clip`` (forward and backward pass), ``clip`` (prediction of all frames
            together) or ``video`` (prediction clip by clip, as TEST.CLIP says).
        frames: of the clip or video.
        size: height and width, in pixels.
        threads: of PyTorch.

    Returns:
        The peak memory in bytes, beyond that of the model.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, cfg, part, frames, size, threads).result()


def _measure(cfg: CfgNode, part: str, frames: int, size: tuple[int, int], threads: int) -> int:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build_model(cfg)
    prepare_execution(cfg, model)
    device = cfg.MODEL.DEVICE
    reset_peak(device)
    before = torch.cuda.memory_allocated() if device == "cuda" else peak(device)
    if part == "training clip":
        _train(model.train(), frames, size)
    else:
        with torch.no_grad():
            _predict(model.eval(), part, frames, size)
    return peak(device) - before


def _train(model: nn.Module, frames: int, size: tuple[int, int]) -> None:
    of_frames = []
    for _ in range(frames):
        instances = Instances(size)
        instances.gt_classes = torch.zeros(_OBJECTS, dtype=torch.int64)
        instances.gt_masks = torch.rand(_OBJECTS, *size) > 0.5
        of_frames.append(instances)
    clip = {"image": list(_frames(frames, size)), "instances": of_frames}
    sum(model([clip]).values()).backward()


def _predict(model: nn.Module, part: str, frames: int, size: tuple[int, int]) -> None:
    if part == "clip":
        model([{"image": list(_frames(frames, size))}])
        return
    for _ in model.track(_frames(frames, size), size):
        pass


def _frames(number: int, size: tuple[int, int]) -> Iterator[Tensor]:
    """Random frames, made when they are asked for."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(number):
        yield torch.randint(256, (3, *size), dtype=torch.uint8, generator=generator)
