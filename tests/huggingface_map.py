"""Small Mask2Formers from Hugging Face, and their weights under our names."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import Mask2FormerConfig, PreTrainedModel, SwinConfig

from ddep.checkpoint.conversion import Conversion, convert
from ddep.checkpoint.conversion.huggingface_names import MASK2FORMER
from ddep.checkpoint.conversion.name_table import NameTable

State = dict[str, torch.Tensor]

STAGES = ["stage1", "stage2", "stage3", "stage4"]


def small_config(**changes) -> Mask2FormerConfig:
    """Hugging Face's Mask2Former with a tiny Swin, 5 classes and 10 queries."""
    backbone = SwinConfig(
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 4, 8],
        drop_path_rate=0.0,
        out_features=STAGES,
    )
    settings = {
        "backbone_config": backbone,
        "feature_size": 64,
        "mask_feature_size": 48,
        "hidden_dim": 64,
        "num_attention_heads": 4,
        "encoder_layers": 2,
        "encoder_feedforward_dim": 1024,
        "decoder_layers": 8,
        "dim_feedforward": 96,
        "num_queries": 10,
        "num_labels": 5,
        "dropout": 0.0,
    }
    return Mask2FormerConfig(**{**settings, **changes})


def randomise(module: nn.Module, seed: int = 0) -> None:
    """Give every parameter a random value of a size that keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            inputs = parameter[0].numel()
            parameter.copy_(values / inputs**0.5 if parameter.dim() > 1 else 0.5 + values / 2)


def randomise_model(model: PreTrainedModel) -> None:
    """Give all used parameters and buffers of a whole model random values.

    They are smaller than those of :func:`randomise`, so that deep models do not blow up. The norm
    after a Swin's last stage, which backbones have but do not use, is not changed.
    """
    generator = torch.Generator().manual_seed(0)

    def fill(values: torch.Tensor, low: float, high: float) -> None:
        values.copy_(low + (high - low) * torch.rand(values.shape, generator=generator))

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".encoder." in name and ".layernorm." in name:
                continue
            if parameter.dim() > 1:
                bound = (3 / parameter[0].numel()) ** 0.5
                fill(parameter, -bound, bound)
            elif name.endswith("weight"):
                fill(parameter, 0.3, 0.8)
            else:
                fill(parameter, -0.5, 0.5)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                fill(module.running_mean, -0.3, 0.3)
                fill(module.running_var, 0.8, 1.6)


def saved(model: PreTrainedModel) -> tuple[State, dict[str, Any]]:
    """The weights and the config.json that ``save_pretrained`` writes.

    In memory, transformers 5 has other names for some weights.
    """
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        weights = load_file(Path(folder) / "model.safetensors")
        return weights, json.loads((Path(folder) / "config.json").read_text())


def converted(model: PreTrainedModel) -> Conversion:
    """Convert a saved model of Hugging Face's."""
    weights, settings = saved(model)
    return convert(weights, settings=settings)


def part_state(theirs: State, prefix: str, names: NameTable, ours: str) -> State:
    """The weights of a part of Hugging Face's model, under the names of our part.

    Args:
        theirs: the part's state dict.
        prefix: of the part in their model, with a dot.
        names: of the whole models.
        ours: prefix of the part in our model, with a dot.
    """
    entries = names.entries({prefix + key: value for key, value in theirs.items()})
    return below({name: entry.tensor for name, entry in entries.items()}, ours)


def pixel_decoder_state(theirs: State) -> State:
    """``Mask2FormerPixelDecoder`` -> ``MSDeformAttnPixelDecoder``."""
    return part_state(
        theirs, "model.pixel_level_module.decoder.", MASK2FORMER, "sem_seg_head.pixel_decoder."
    )


def predictor_state(theirs: State, class_predictor: State) -> State:
    """``Mask2FormerTransformerModule``, class layer -> ``MultiScaleMaskedTransformerDecoder``."""
    predictor = "sem_seg_head.predictor."
    return {
        **part_state(theirs, "model.transformer_module.", MASK2FORMER, predictor),
        **part_state(class_predictor, "class_predictor.", MASK2FORMER, predictor),
    }


def head_state(theirs: State) -> State:
    """``Mask2FormerForUniversalSegmentation`` -> ``sem_seg_head``, without the backbone."""
    return part_state(theirs, "", MASK2FORMER, "sem_seg_head.")


def below(state: State, prefix: str) -> State:
    """The weights whose names start with ``prefix``, without it."""
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
