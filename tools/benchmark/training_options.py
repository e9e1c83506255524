"""The options that are measured, and a training step with each of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import nn

from ddep.engine.execution import prepare_execution
from ddep.engine.optimizer import build_optimizer, max_grad_norm
from ddep.engine.train_step import PRECISIONS, TrainStep
from ddep.noise import add_noise, draw_sigma
from ddep.tasks import load_config, task_of

_FREEZE = "MODEL.DDEP.FREEZE_BACKBONE"
_SWIN = "MODEL.SWIN.USE_CHECKPOINT"
_DECODER = "MODEL.DDEP.CHECKPOINT_PIXEL_DECODER"
# Objects in an image.
_OBJECTS = 10


@dataclass(frozen=True)
class Option:
    """Config keys to switch on, and the precision of autocast (a key of PRECISIONS, or "")."""

    name: str
    keys: tuple[str, ...] = ()
    precision: str = ""


BASELINE = Option("baseline")
OPTIONS = (
    Option("frozen-backbone", (_FREEZE,)),
    Option("checkpoint-swin", (_SWIN,)),
    Option("checkpoint-pixel-decoder", (_DECODER,)),
    Option("checkpoint-both", (_SWIN, _DECODER)),
    Option("channels-last", ("MODEL.DDEP.CHANNELS_LAST",)),
    Option("compile", ("MODEL.DDEP.COMPILE",)),
    Option("bfloat16", precision="bfloat16"),
    Option("float16", precision="float16"),
)


def load_benchmark_config(path: str, opts: Sequence[str], device: str) -> CfgNode:
    """Read a config for models with random weights that see random images.

    Args:
        path: of the file.
        opts: keys and values on top of it.
        device: ``cpu`` or ``cuda``.

    Raises:
        UserError: the file or a key cannot be used.
    """
    cfg = load_config(path, [*opts, "MODEL.DEVICE", device])
    cfg.MODEL.WEIGHTS = ""
    if not cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON:  # which needs to know what are things
        # Annotations are random: no data set has to fit the model.
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    cfg.freeze()
    return cfg


def applies(option: Option, cfg: CfgNode) -> bool:
    """Whether ``option`` changes anything for this config, on its device."""
    if _FREEZE in option.keys:
        frozen = cfg.clone()
        frozen.defrost()
        frozen.merge_from_list([_FREEZE, True])
        return task_of(cfg).freezes_encoder(frozen)
    if _SWIN in option.keys and cfg.MODEL.BACKBONE.NAME != "D2SwinTransformer":
        return False
    if _DECODER in option.keys and cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME == "BasePixelDecoder":
        return False
    # Loss scaling needs no GPU, but half the operators are slower or missing in float16 on CPUs.
    return option.precision != "float16" or cfg.MODEL.DEVICE != "cpu"


def make_step(
    cfg: CfgNode, option: Option, image_size: int, batch_size: int
) -> tuple[nn.Module, Callable[[], object]]:
    """Build a model with random weights and a training step on random images.

    Args:
        cfg: the baseline's config.
        option: the difference from it.
        image_size: height and width in pixels.
        batch_size: images in a batch.

    Returns:
        The model on its device, and the step.
    """
    cfg = cfg.clone()
    cfg.defrost()
    for option_key in (_FREEZE, _SWIN, _DECODER, *option.keys):
        cfg.merge_from_list([option_key, option_key in option.keys])
    torch.manual_seed(0)
    model = build_model(cfg)
    prepare_execution(cfg, model)
    batch = make_batch(cfg, image_size, batch_size)
    return model, make_train_step(cfg, model, batch, option.precision)


def make_train_step(
    cfg: CfgNode, model: nn.Module, batch: list[dict[str, Any]], precision: str = ""
) -> Callable[[], object]:
    """A training step of ``model`` on ``batch``, as in training with ``cfg``.

    Args:
        cfg, model, batch: see :class:`TrainStep`.
        precision: of autocast, a key of PRECISIONS; anything else is float32.
    """
    step = TrainStep(
        model,
        itertools.repeat(batch),
        build_optimizer(cfg, model),
        normalisers=task_of(cfg).normalisers(model),
        precision=PRECISIONS.get(precision),
        max_grad_norm=max_grad_norm(cfg),
    )
    return step.run


def make_batch(cfg: CfgNode, size: int, count: int) -> list[dict[str, Any]]:
    """``count`` random images of ``size`` x ``size`` pixels, with what the task trains on."""
    if task_of(cfg).num_classes(cfg) is None:
        return [_noisy(cfg, size) for _ in range(count)]
    return [_annotated(cfg, size) for _ in range(count)]


def _noisy(cfg: CfgNode, size: int) -> dict[str, Any]:
    image, noise = torch.randn(2, 3, size, size)
    sigma = draw_sigma(cfg.MODEL.DDEP.SIGMA)
    noisy = add_noise(image, noise, sigma, cfg.MODEL.DDEP.NOISE)
    return {"image": noisy, "noise": noise, "sigma": sigma}


def _annotated(cfg: CfgNode, size: int) -> dict[str, Any]:
    """A random image whose objects are squares of half its side at random places."""
    instances = Instances((size, size))
    instances.gt_classes = torch.randint(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, (_OBJECTS,))
    instances.gt_masks = torch.zeros(_OBJECTS, size, size, dtype=torch.bool)
    for mask, (row, column) in zip(
        instances.gt_masks, torch.randint(size // 2, (_OBJECTS, 2)).tolist(), strict=True
    ):
        mask[row : row + size // 2, column : column + size // 2] = True
    image = torch.randint(256, (3, size, size), dtype=torch.uint8)
    return {"image": image, "instances": instances}
