"""Express Mask2Former and MaskFormer as models of Hugging Face's ``transformers``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from safetensors.torch import save

from ddep.checkpoint.conversion.huggingface_names import MASK2FORMER, MASKFORMER
from ddep.checkpoint.conversion.name_table import NameTable
from ddep.checkpoint.conversion.resizing import is_computed
from ddep.errors import UserError
from ddep.export.huggingface_config import (
    mask2former_config,
    maskformer_config,
    processor_config,
)
from ddep.export.huggingface_requirements import require

FILES = ("config.json", "model.safetensors", "preprocessor_config.json")


@dataclass(frozen=True)
class _Kind:
    """One of Hugging Face's classes.

    Attributes:
        names: names of the weights.
        config: our config -> the content of ``config.json``, without the labels.
        processor: the class of its image processor.
        swin_norm: a norm that its Swin has but does not use.
        has_index: whether its files hold the index of Swin's relative positions.
    """

    names: NameTable
    config: Callable[[CfgNode], dict[str, Any]]
    processor: str
    swin_norm: str
    has_index: bool


# By the pixel decoder.
_KINDS = {
    "MSDeformAttnPixelDecoder": _Kind(
        names=MASK2FORMER,
        config=mask2former_config,
        processor="Mask2FormerImageProcessor",
        swin_norm="model.pixel_level_module.encoder.swin.layernorm",
        has_index=False,
    ),
    "BasePixelDecoder": _Kind(
        names=MASKFORMER,
        config=maskformer_config,
        processor="MaskFormerImageProcessor",
        swin_norm="model.pixel_level_module.encoder.model.layernorm",
        has_index=True,
    ),
}


@dataclass(frozen=True)
class HuggingFaceModel:
    """The content of a folder that ``from_pretrained`` loads.

    Attributes:
        config: the content of ``config.json``.
        processor: the content of ``preprocessor_config.json``.
        weights: Hugging Face's name -> tensor.
    """

    config: dict[str, Any]
    processor: dict[str, Any]
    weights: dict[str, torch.Tensor]

    def write(self, folder: str) -> None:
        """Write :data:`FILES` into an existing folder.

        Raises:
            OSError: the disk is full.
        """
        for name, content in zip(FILES[::2], (self.config, self.processor), strict=True):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2)
        # safetensors could write the file itself, but its errors do not say that the disk is full.
        content = save(self.weights, metadata={"format": "pt"})
        with open(os.path.join(folder, FILES[1]), "wb") as file:
            file.write(content)


def check_expressible(cfg: CfgNode) -> None:
    """Raise :class:`UserError` if no class of Hugging Face's can express the model of ``cfg``."""
    _kind(cfg).config(cfg)


def to_hugging_face(
    weights: Mapping[str, torch.Tensor], cfg: CfgNode, class_names: Sequence[str] | None = None
) -> HuggingFaceModel:
    """Express a trained model as one of Hugging Face's classes.

    Args:
        weights: the state dict of the model that ``cfg`` describes.
        cfg: the config it was trained with.
        class_names: names of all classes; None calls them LABEL_0, LABEL_1, ...

    Raises:
        UserError: see :func:`check_expressible`; or Hugging Face has no place for a weight.
    """
    kind = _kind(cfg)
    labels = class_names or [f"LABEL_{i}" for i in range(cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES)]
    config = {
        **kind.config(cfg),
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    return HuggingFaceModel(
        config, processor_config(cfg, kind.processor), _tensors(weights, cfg, kind)
    )


def _kind(cfg: CfgNode) -> _Kind:
    require(cfg, {"MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": list(_KINDS)})
    return _KINDS[cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME]


def _tensors(
    weights: Mapping[str, torch.Tensor], cfg: CfgNode, kind: _Kind
) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():
        if is_computed(name) and not kind.has_index:
            continue
        names = kind.names.theirs(name)
        if not names:
            raise UserError(f"Hugging Face has no place for {name}, with this pixel decoder")
        # Copies, because safetensors takes neither views nor shared memory.
        parts = tensor.detach().cpu().chunk(len(names))
        tensors |= {key: part.clone() for key, part in zip(names, parts, strict=True)}
    # Initial values of what Hugging Face's class has but does not use.
    if cfg.MODEL.BACKBONE.NAME == "D2SwinTransformer":
        channels = 8 * cfg.MODEL.SWIN.EMBED_DIM
        tensors[f"{kind.swin_norm}.weight"] = torch.ones(channels)
        tensors[f"{kind.swin_norm}.bias"] = torch.zeros(channels)
    for name in [name for name in tensors if name.endswith(".running_var")]:
        counter = name.replace(".running_var", ".num_batches_tracked")
        tensors.setdefault(counter, torch.zeros((), dtype=torch.int64))
    return tensors
