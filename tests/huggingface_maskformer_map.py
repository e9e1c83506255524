"""MaskFormers of Hugging Face's, and their weights under the names of ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation, ResNetConfig
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig

from tests.huggingface_map import State, below, rename

# Patterns and what they become.
RESNET_NAMES = {
    r"^embedder\.embedder\.": "stem.conv1.",
    r"^encoder\.stages\.(\d)\.layers\.": lambda match: f"res{int(match[1]) + 2}.",
    r"\.layer\.(\d)\.": lambda match: f".conv{int(match[1]) + 1}.",
    r"\.convolution\.": ".",
    r"\.normalization\.": ".norm.",
}
# Levels are numbered from fine to coarse in ours, from coarse to fine in theirs.
PIXEL_DECODER_NAMES = {
    r"^fpn\.stem": "layer_4",
    r"^fpn\.layers\.(\d)\.proj": lambda match: f"adapter_{3 - int(match[1])}",
    r"^fpn\.layers\.(\d)\.block": lambda match: f"layer_{3 - int(match[1])}",
    r"^(adapter|layer)_(\d)\.0\.": r"\1_\2.",
    r"^(adapter|layer)_(\d)\.1\.": r"\1_\2.norm.",
    r"^mask_projection": "mask_features",
}
# Files from before transformers 5 have out_proj for o_proj, and fc1 and fc2 without mlp.
PREDICTOR_NAMES = {
    r"^queries_embedder": "query_embed",
    r"^input_projection": "input_proj",
    r"^class_predictor": "class_embed",
    r"^mask_embedder\.(\d)\.0": r"mask_embed.layers.\1",
    r"^decoder\.layernorm": "transformer.decoder.norm",
    r"^decoder\.layers": "transformer.decoder.layers",
    r"\.encoder_attn\.": ".multihead_attn.",
    r"\.(o|out)_proj\.": ".out_proj.",
    r"\.self_attn_layer_norm": ".norm1",
    r"\.encoder_attn_layer_norm": ".norm2",
    r"\.final_layer_norm": ".norm3",
    r"\.(mlp\.)?fc(\d)": r".linear\2",
}


def resnet_state(theirs: State) -> State:
    """``ResNetBackbone`` -> detectron2's ResNet with frozen normalisation."""
    return {
        rename(key, RESNET_NAMES): value
        for key, value in theirs.items()
        if not key.endswith("num_batches_tracked")
    }


def pixel_decoder_state(theirs: State) -> State:
    """``MaskFormerPixelDecoder`` -> ``BasePixelDecoder``."""
    return {rename(key, PIXEL_DECODER_NAMES): value for key, value in theirs.items()}


def predictor_state(theirs: State) -> State:
    """``MaskFormerTransformerModule``, class and mask layers -> ``StandardTransformerDecoder``."""
    ours = {}
    for key, value in theirs.items():
        if ".q_proj." in key:
            parts = [theirs[key.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
            key, value = key.replace(".q_proj.", ".in_proj_"), torch.cat(parts)
        if ".k_proj." not in key and ".v_proj." not in key:
            ours[rename(key, PREDICTOR_NAMES)] = value
    return ours


def model_state(theirs: State) -> State:
    """``MaskFormerForInstanceSegmentation`` with a ResNet -> ``MaskFormer``."""
    predictor = {
        **below(theirs, "model.transformer_module."),
        **{key: theirs[key] for key in theirs if key.startswith(("class_pred", "mask_embedder"))},
    }
    parts = {
        "backbone.": resnet_state(below(theirs, "model.pixel_level_module.encoder.")),
        "sem_seg_head.pixel_decoder.": pixel_decoder_state(
            below(theirs, "model.pixel_level_module.decoder.")
        ),
        "sem_seg_head.predictor.": predictor_state(predictor),
        "criterion.": below(theirs, "criterion."),
    }
    return {f"{prefix}{key}": part[key] for prefix, part in parts.items() for key in part}


def maskformer(*, small: bool) -> MaskFormerForInstanceSegmentation:
    """Hugging Face's MaskFormer with a ResNet-50 in eval mode, random, of 5 or 133 classes.

    Small: a quarter of the channels, 10 queries, 3 decoder layers.
    """
    width = 16 if small else 64
    backbone = ResNetConfig(
        embedding_size=width,
        hidden_sizes=[4 * width, 8 * width, 16 * width, 32 * width],
        depths=[3, 4, 6, 3],
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    decoder = MaskFormerDetrConfig(
        d_model=64 if small else 256,
        decoder_layers=3 if small else 6,
        decoder_ffn_dim=96 if small else 2048,
        decoder_attention_heads=4 if small else 8,
        encoder_attention_heads=4 if small else 8,
        num_queries=10 if small else 100,
        dropout=0.0,
    )
    config = MaskFormerConfig(
        backbone_config=backbone,
        decoder_config=decoder,
        fpn_feature_size=32 if small else 256,
        mask_feature_size=48 if small else 256,
        num_labels=5 if small else 133,
    )
    model = MaskFormerForInstanceSegmentation(config).eval()
    _randomise(model)
    return model


def _randomise(model: nn.Module) -> None:
    """Random values of a size that keeps activations near 1, in all that is learned or counted."""
    generator = torch.Generator().manual_seed(0)

    def fill(values: Tensor, low: float, high: float) -> None:
        values.copy_(low + (high - low) * torch.rand(values.shape, generator=generator))

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                bound = (6 / parameter[0].numel()) ** 0.5  # He initialisation, uniform
                fill(parameter, -bound, bound)
            elif name.endswith("weight"):
                fill(parameter, 0.3, 0.8)
            else:
                fill(parameter, -0.5, 0.5)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                fill(module.running_mean, -0.3, 0.3)
                fill(module.running_var, 0.8, 1.6)


def predict(model: MaskFormerForInstanceSegmentation, pixels: Tensor) -> list[dict[str, Any]]:
    """The predictions of every decoder layer as MaskFormer makes them, the last one last.

    Hugging Face's own auxiliary predictions are others: they start with those of the queries before
    the first layer, which are zero, and come from queries that are not normalised.
    """
    outputs = model.model(pixels, output_hidden_states=True)
    *hidden, last = outputs.transformer_decoder_hidden_states[1:]
    norm = model.model.transformer_module.decoder.layernorm
    return [
        {
            "pred_logits": model.class_predictor(queries),
            "pred_masks": torch.einsum(
                "bqc,bchw->bqhw",
                model.mask_embedder(queries),
                outputs.pixel_decoder_last_hidden_state,
            ),
        }
        for queries in [*map(norm, hidden), last]
    ]
