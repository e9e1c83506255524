"""Convert a checkpoint of any known format to weights that fit a model of this project."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

from ddep.checkpoint.conversion import (
    convnext,
    detectron2_zoo,
    detr,
    dinov2,
    dinov3,
    huggingface_detr,
    huggingface_mask2former,
    huggingface_maskformer,
    mask2former,
    pretraining,
    resnet,
    swin,
    torchvision_detection,
    vit,
)
from ddep.checkpoint.conversion.coco_classes import KEEP_CLASSES
from ddep.checkpoint.conversion.entries import Settings, Weights
from ddep.checkpoint.conversion.resizing import is_computed, relative_position_index, resize
from ddep.checkpoint.groups import CONFIGURED, group_of
from ddep.errors import UserError

FORMATS: dict[str, ModuleType] = {
    "swin": swin,
    "resnet": resnet,
    "convnext": convnext,
    "vit": vit,
    "dinov2": dinov2,
    "dinov3": dinov3,
    "detectron2": detectron2_zoo,
    "mask2former": mask2former,
    "hf-mask2former": huggingface_mask2former,
    "hf-maskformer": huggingface_maskformer,
    "torchvision-detection": torchvision_detection,
    "detr": detr,
    "hf-detr": huggingface_detr,
    "ddep": pretraining,
}

# Formats whose weights keep their names: the config that trained them fits.
OWN_NAMES = ("mask2former", "ddep")

Shape = tuple[int, ...]


@dataclass
class Conversion:
    """A converted state dict, and the origin of its weights.

    Attributes:
        format_name: the source's format, a key of FORMATS.
        weights: name in the whole model -> tensor.
        sources: name in the whole model -> the names in the source that it is made of.
        unused: names in the source that no weight uses.
        config: the config keys and values that describe the model of these weights; empty if the
            weights do not determine them.
        resized: name in the whole model -> (the source's shape, the model's), after :meth:`fit`.
        missing: names in the model that have no weight, after :meth:`fit`; constants that follow
            from the config are not counted.
    """

    format_name: str
    weights: Weights
    sources: dict[str, tuple[str, ...]]
    unused: list[str]
    config: dict[str, Any]
    resized: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def fit(self, model: Mapping[str, torch.Tensor]) -> None:
        """Resize weights to a model's sizes, and find out which are missing and unused.

        Position tables and embeddings, and the kernels of patch embeddings, can be resized.
        Constants that follow from the config are computed, whatever the source has.

        Args:
            model: the model's state dict, or the part of it that the weights are for; only shapes
                count, so it may be on the meta device.

        Raises:
            UserError: a weight has another shape and cannot be resized, or nothing fits.
        """
        strangers = [name for name in self.weights if name not in model]
        for name in strangers:
            del self.weights[name]
            self.unused += self.sources.pop(name)
        if not self.weights:
            raise UserError(
                f"no weight fits the model: found {', '.join(strangers[:3])}, ..., expected "
                f"{', '.join(list(model)[:3])}, ...; use a config of the same kind of model"
            )
        self.missing = []
        for name, like in model.items():
            shape = tuple(like.shape)
            tensor = self.weights.get(name)
            if tensor is not None and tuple(tensor.shape) != shape:
                self.resized[name] = (tuple(tensor.shape), shape)
            if is_computed(name):
                self.weights[name] = relative_position_index(shape)
            elif tensor is None:
                if group_of(name) not in CONFIGURED:
                    self.missing.append(name)
            elif name in self.resized:
                self.weights[name] = resize(name, tensor, shape)


def convert(
    weights: Weights,
    format_name: str = "auto",
    settings: Settings | None = None,
    *,
    keep_classes: bool = False,
) -> Conversion:
    """Find the weights of a model of this project in a checkpoint.

    Args:
        weights: the source's state dict.
        format_name: a key of FORMATS, or "auto".
        settings: the content of the ``config.json`` beside it, if there is one.
        keep_classes: keep all classes of a model with as many as one that numbers them by COCO's
            ids, instead of those that COCO has.

    Raises:
        UserError: the weights are not of that format or, with "auto", of no format, of several, or
            already have this project's names.
    """
    settings = {**(settings or {}), KEEP_CLASSES: keep_classes}
    name = _recognise(weights, format_name)
    form = FORMATS[name]
    entries = form.entries(weights, settings)
    used = {source for entry in entries.values() for source in entry.sources}
    return Conversion(
        format_name=name,
        weights={target: entry.tensor for target, entry in entries.items()},
        sources={target: entry.sources for target, entry in entries.items()},
        unused=sorted((source for source in weights if source not in used), key=_is_counter),
        config=form.config_of(weights, settings),
    )


def _is_counter(name: str) -> bool:
    """Sorts the counters of batch norms, which nobody needs, to the end of a list."""
    return name.endswith(".num_batches_tracked")


def _recognise(weights: Weights, format_name: str) -> str:
    candidates = list(FORMATS) if format_name == "auto" else [format_name]
    found = [name for name in candidates if FORMATS[name].recognises(weights)]
    if format_name == "auto" and found == ["detectron2"] and detectron2_zoo.is_converted(weights):
        raise UserError(
            f"the {len(weights)} weights already have this project's names ({next(iter(weights))}, "
            "...); name the file in MODEL.WEIGHTS as it is"
        )
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"the weights could be of the formats {' and '.join(found)}; choose one with --from"
        )
    looked_for = "; ".join(f"{FORMATS[name].LOOKED_FOR} ({name})" for name in candidates)
    raise UserError(
        f"nothing matches the format {' or '.join(candidates)}: found {len(weights)} weights, "
        f"{', '.join(list(weights)[:4])}, ...; looked for {looked_for}; what already has this "
        "project's names, or is of detectron2's zoo, can be named in MODEL.WEIGHTS as it is"
    )
