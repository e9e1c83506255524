"""Small Mask2Formers of Hugging Face's, and their weights under the names of ours."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import nn
from transformers import Mask2FormerConfig, SwinConfig

State = dict[str, torch.Tensor]

# Patterns and what they become; the transformer decoder's layers come separately.
PIXEL_DECODER_NAMES = {
    r"^input_projections": "input_proj",
    r"^level_embed": "transformer.level_embed",
    r"^encoder": "transformer.encoder",
    r"self_attn_layer_norm": "norm1",
    r"final_layer_norm": "norm2",
    r"\.fc(\d)": r".linear\1",
    r"^mask_projection": "mask_features",
    r"^(adapter|layer)_(\d)\.0": r"\1_\2",
    r"^(adapter|layer)_(\d)\.1": r"\1_\2.norm",
}
PREDICTOR_NAMES = {
    r"^input_projections": "input_proj",
    r"^queries_embedder": "query_embed",
    r"^queries_features": "query_feat",
    r"^decoder\.layernorm": "decoder_norm",
    r"^decoder\.mask_predictor\.mask_embedder\.(\d)\.0": r"mask_embed.layers.\1",
}
DECODER_LAYER_NAMES = {
    "self_attn.out_proj": ("self_attention", "self_attn.out_proj"),
    "self_attn_layer_norm": ("self_attention", "norm"),
    "cross_attn": ("cross_attention", "multihead_attn"),
    "cross_attn_layer_norm": ("cross_attention", "norm"),
    "fc1": ("ffn", "linear1"),
    "fc2": ("ffn", "linear2"),
    "final_layer_norm": ("ffn", "norm"),
}


def small_config(**changes) -> Mask2FormerConfig:
    """A Mask2Former of Hugging Face's with a tiny Swin, 5 classes and 10 queries."""
    backbone = SwinConfig(
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 4, 8],
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
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


def pixel_decoder_state(theirs: State) -> State:
    """``Mask2FormerPixelDecoder`` -> ``MSDeformAttnPixelDecoder``."""
    return {rename(key, PIXEL_DECODER_NAMES): value for key, value in theirs.items()}


def predictor_state(theirs: State, class_predictor: State) -> State:
    """``Mask2FormerTransformerModule``, class layer -> ``MultiScaleMaskedTransformerDecoder``."""
    ours = {f"class_embed.{key}": value for key, value in class_predictor.items()}
    for key, value in theirs.items():
        if not key.startswith("decoder.layers."):
            ours[rename(key, PREDICTOR_NAMES)] = value
            continue
        _, _, layer, name = key.split(".", 3)
        if name.startswith(("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")):
            kind = name.rpartition(".")[2]
            stem = f"decoder.layers.{layer}.self_attn"
            target = f"transformer_self_attention_layers.{layer}.self_attn.in_proj_{kind}"
            ours[target] = torch.cat([theirs[f"{stem}.{part}_proj.{kind}"] for part in "qkv"])
            continue
        for old, (part, new) in DECODER_LAYER_NAMES.items():
            if name.startswith(f"{old}."):
                ours[f"transformer_{part}_layers.{layer}.{new}{name.removeprefix(old)}"] = value
    return ours


def head_state(theirs: State) -> State:
    """``Mask2FormerForUniversalSegmentation`` -> ``sem_seg_head``, the backbone left out."""
    pixel_decoder = pixel_decoder_state(below(theirs, "model.pixel_level_module.decoder."))
    predictor = predictor_state(
        below(theirs, "model.transformer_module."), below(theirs, "class_predictor.")
    )
    return {
        **{f"pixel_decoder.{key}": value for key, value in pixel_decoder.items()},
        **{f"predictor.{key}": value for key, value in predictor.items()},
    }


def below(state: State, prefix: str) -> State:
    """The weights whose names start with ``prefix``, without it."""
    return {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }


def rename(key: str, names: dict[str, str | Callable[[re.Match[str]], str]]) -> str:
    """Replace each pattern by what it becomes, one after the other."""
    for pattern, replacement in names.items():
        key = re.sub(pattern, replacement, key)
    return key
