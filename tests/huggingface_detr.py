"""Hugging Face's DETR with random weights, and the same model of ours."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling import build_model
from torch import Tensor, nn
from transformers import DetrConfig, PreTrainedModel

from tests.checkpoint.conversion.converting import config_of
from tests.huggingface_map import converted, randomise_model

NUM_CLASSES, QUERIES = 5, 7
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def small_detr(kind: type[PreTrainedModel], **changes: Any) -> Any:
    """A DETR of timm's ResNet-18, two encoder and three decoder layers, in eval mode."""
    sizes = {
        "d_model": 64,
        "num_queries": QUERIES,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "num_labels": NUM_CLASSES,
        "backbone": "resnet18",
    }
    model = kind(DetrConfig(**{**sizes, **changes})).eval()
    randomise_model(model)
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():  # of frozen batch norms
        low, high = (0.8, 1.6) if name.endswith("running_var") else (-0.3, 0.3)
        low, high = (0.3, 0.8) if name.endswith("weight") else (low, high)
        buffer.copy_(low + (high - low) * torch.rand(buffer.shape, generator=generator))
    return model


def ours_of(theirs: PreTrainedModel, **keys: Any) -> nn.Module:
    """Our model with the weights of theirs, in eval mode; ``keys`` change the config."""
    conversion = converted(theirs)
    changes = {key.replace("__", "."): value for key, value in keys.items()}
    model = build_model(config_of({**conversion.config, "MODEL.DEVICE": "cpu", **changes})).eval()
    weights = {**conversion.weights, "criterion.empty_weight": model.criterion.empty_weight}
    model.load_state_dict(weights)
    return model


def pixels_of(images: list[Tensor]) -> dict[str, Tensor]:
    """What Hugging Face's model takes: images (3, H, W), 0..255, padded to one size, and the mask
    of their pixels."""
    size = [max(image.shape[dim] for image in images) for dim in (1, 2)]
    pixels = torch.zeros(len(images), 3, *size)
    mask = torch.zeros(len(images), *size, dtype=torch.int64)
    for number, image in enumerate(images):
        height, width = image.shape[1:]
        pixels[number, :, :height, :width] = (image / 255 - MEAN) / STD
        mask[number, :height, :width] = 1
    return {"pixel_values": pixels, "pixel_mask": mask}
