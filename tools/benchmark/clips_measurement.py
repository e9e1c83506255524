"""Measure the memory of clips of different lengths, each in its own process."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Instances

from ddep.engine.execution import prepare_execution
from peak_memory import peak, reset_peak

# Objects in a clip.
_OBJECTS = 5


def measure(cfg: CfgNode, training: bool, frames: int, size: tuple[int, int], threads: int) -> int:
    """Measure one step with a model of random weights and random frames.

    Args:
        cfg: of a VideoMaskFormer.
        training: a forward and a backward pass; otherwise a prediction.
        frames: of the clip.
        size: height and width, in pixels.
        threads: of PyTorch.

    Returns:
        The peak memory in bytes, beyond that of the model.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_measure, cfg, training, frames, size, threads).result()


def _measure(cfg: CfgNode, training: bool, frames: int, size: tuple[int, int], threads: int) -> int:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build_model(cfg)
    prepare_execution(cfg, model)
    device = cfg.MODEL.DEVICE
    reset_peak(device)
    before = torch.cuda.memory_allocated() if device == "cuda" else peak(device)
    if training:
        sum(model.train()([_clip(frames, size)]).values()).backward()
    else:
        with torch.no_grad():
            model.eval()([_clip(frames, size)])
    return peak(device) - before


def _clip(frames: int, size: tuple[int, int]) -> dict[str, Any]:
    """A sample of random frames and objects."""
    of_frames = []
    for _ in range(frames):
        instances = Instances(size)
        instances.gt_classes = torch.zeros(_OBJECTS, dtype=torch.int64)
        instances.gt_masks = torch.rand(_OBJECTS, *size) > 0.5
        of_frames.append(instances)
    images = [torch.randint(256, (3, *size), dtype=torch.uint8) for _ in range(frames)]
    return {"image": images, "instances": of_frames}
