"""Checkpoints with the names of DETR and of its detectron2 project, and random weights."""

from __future__ import annotations

import torch
import torchvision
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

State = dict[str, torch.Tensor]

HIDDEN_DIM, FEEDFORWARD, QUERIES, HEADS = 128, 24, 7, 8


def detr_state(outputs: int, *, depth: int = 18, masks: bool = False) -> State:
    """A file of DETR's main.py: ``outputs`` without that of no object, two encoder and three
    decoder layers."""
    torch.manual_seed(0)
    resnet = getattr(torchvision.models, f"resnet{depth}")(norm_layer=FrozenBatchNorm2d)
    body = {f"backbone.0.body.{n}": t for n, t in resnet.state_dict().items() if n[:3] != "fc."}
    layer = nn.TransformerEncoderLayer(HIDDEN_DIM, HEADS, FEEDFORWARD)
    decoder_layer = nn.TransformerDecoderLayer(HIDDEN_DIM, HEADS, FEEDFORWARD)
    parts = nn.ModuleDict(
        {
            "transformer": nn.ModuleDict(
                {
                    "encoder": nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
                    "decoder": nn.TransformerDecoder(
                        decoder_layer, 3, norm=nn.LayerNorm(HIDDEN_DIM)
                    ),
                }
            ),
            "class_embed": nn.Linear(HIDDEN_DIM, outputs + 1),
            "bbox_embed": nn.ModuleDict(
                {
                    "layers": nn.ModuleList(
                        nn.Linear(HIDDEN_DIM, n) for n in (HIDDEN_DIM, HIDDEN_DIM, 4)
                    )
                }
            ),
            "query_embed": nn.Embedding(QUERIES, HIDDEN_DIM),
            "input_proj": nn.Conv2d(512 if depth < 50 else 2048, HIDDEN_DIM, 1),
        }
    )
    state = {**body, **parts.state_dict()}
    if not masks:
        return state
    return {**{f"detr.{name}": tensor for name, tensor in state.items()}, **_masks(depth)}


def _masks(depth: int) -> State:
    widths = [HIDDEN_DIM + HEADS, *(HIDDEN_DIM // n for n in (2, 4, 8, 16))]
    features = [256, 128, 64] if depth < 50 else [1024, 512, 256]
    head: dict[str, nn.Module] = {"lay1": nn.Conv2d(widths[0], widths[0], 3)}
    for number in range(5):
        if number:
            head[f"lay{number + 1}"] = nn.Conv2d(widths[number - 1], widths[number], 3)
        head[f"gn{number + 1}"] = nn.GroupNorm(8, widths[number])
    for number, channels in enumerate(features, start=1):
        head[f"adapter{number}"] = nn.Conv2d(channels, widths[number], 1)
    head["out_lay"] = nn.Conv2d(widths[-1], 1, 3)
    attention = {f"{part}_linear": nn.Linear(HIDDEN_DIM, HIDDEN_DIM) for part in "qk"}
    parts = {"mask_head": nn.ModuleDict(head), "bbox_attention": nn.ModuleDict(attention)}
    return nn.ModuleDict(parts).state_dict()


def detectron2_state(state: State) -> State:
    """The same below ``detr.``, with detectron2's names of a ResNet of basic blocks."""
    found = {}
    for name, tensor in state.items():
        outer, inner = name, ""
        if "backbone.0.body." in name:
            start, inner = name.split("backbone.0.body.")
            outer = f"{start}backbone.0.backbone."
            words = inner.split(".")
            if words[0] in ("conv1", "bn1"):
                words = ["stem", *words]
            words = ["res" + str(int(w[5:]) + 1) if w.startswith("layer") else w for w in words]
            inner = ".".join(f"conv{w[2]}.norm" if w[:2] == "bn" else w for w in words)
            inner = inner.replace("downsample.0", "shortcut").replace(
                "downsample.1", "shortcut.norm"
            )
        found[f"detr.{outer}{inner}"] = tensor
    return found
