"""MaskFormers from Hugging Face, and their weights under our names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import MaskFormerConfig, MaskFormerForInstanceSegmentation, ResNetConfig
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig

from ddep.checkpoint.conversion.huggingface_names import MASKFORMER
from tests.huggingface_map import STAGES, State, part_state, randomise_model


def pixel_decoder_state(theirs: State) -> State:
    """``MaskFormerPixelDecoder`` -> ``BasePixelDecoder``."""
    return part_state(
        theirs, "model.pixel_level_module.decoder.", MASKFORMER, "sem_seg_head.pixel_decoder."
    )


def maskformer(*, small: bool) -> MaskFormerForInstanceSegmentation:
    """Hugging Face's MaskFormer with a ResNet-50, random weights, in eval mode, 5 or 133 classes.

    Small: a quarter of the channels, 10 queries, 3 decoder layers.
    """
    width = 16 if small else 64
    backbone = ResNetConfig(
        embedding_size=width,
        hidden_sizes=[4 * width, 8 * width, 16 * width, 32 * width],
        depths=[3, 4, 6, 3],
        out_features=STAGES,
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
    randomise_model(model)
    return model


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
