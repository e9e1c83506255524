"""The smallest checkpoints of every format, with random weights."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from safetensors.torch import save_file
from torch import nn
from transformers import Mask2FormerForUniversalSegmentation

from ddep.modeling.backbone import D2SwinTransformer
from tests.huggingface_map import saved, small_config
from tests.huggingface_maskformer_map import maskformer

State = dict[str, torch.Tensor]
DECODER = "sem_seg_head.pixel_decoder"


def small_swin() -> nn.Module:
    return D2SwinTransformer(
        embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=3, ape=True
    )


def small_resnet() -> nn.Module:
    """A ResNet-50 with few channels."""
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    return build_backbone(cfg)


def swin() -> State:
    """A Swin's weights, as in original files."""
    state = small_swin().state_dict()
    state = {name: tensor for name, tensor in state.items() if not re.match(r"norm\d", name)}
    positions = state["absolute_pos_embed"]
    state["absolute_pos_embed"] = positions.flatten(2).transpose(1, 2).contiguous()
    return {**state, "norm.weight": torch.ones(64), "head.weight": torch.ones(2, 64)}


def resnet(names: str) -> State:
    """The small ResNet's weights under detectron2's or torchvision's names."""
    state = small_resnet().state_dict()
    if names == "torchvision":
        for pattern, name in {
            r"^stem\.conv1\.norm": "bn1",
            r"^stem\.": "",
            r"conv(\d)\.norm": r"bn\1",
            r"shortcut\.norm": "downsample.1",
            r"shortcut\.weight": "downsample.0.weight",
        }.items():
            state = {re.sub(pattern, name, key): tensor for key, tensor in state.items()}
        state = {
            re.sub(r"^res(\d)", lambda m: f"layer{int(m[1]) - 1}", key): tensor
            for key, tensor in state.items()
        }
    return state


def caffe2_resnet() -> State:
    """The small ResNet's weights under Caffe2's names; Caffe2's norms have no statistics."""
    state = {}
    for name, tensor in resnet("detectron2").items():
        if "running" in name:
            continue
        name = name.replace("stem.conv1.norm", "res_conv1_bn").replace("stem.", "")
        name = re.sub(r"\.conv([123])", lambda m: ".branch2" + "abc"[int(m[1]) - 1], name)
        name = name.replace("shortcut", "branch1").replace(".norm", "_bn")
        suffix = ("_s", "_b") if "bn" in name else ("_w", "_b")
        name = name.replace(".weight", suffix[0]).replace(".bias", suffix[1])
        state[name.replace(".", "_")] = tensor
    return state


def timm_model(name: str) -> State:
    return timm.create_model(name).state_dict()


def dinov2() -> State:
    """A DINOv2 with registers, under its authors' names."""
    model = timm.create_model(
        "vit_small_patch14_reg4_dinov2", embed_dim=16, depth=2, num_heads=2, img_size=56
    )
    state = model.state_dict()
    state["register_tokens"] = state.pop("reg_token")
    state["pos_embed"] = torch.cat([torch.ones(1, 1, 16), state["pos_embed"]], dim=1)
    return {**state, "mask_token": torch.zeros(1, 16)}


def segmentation() -> State:
    """A few weights with Mask2Former's names."""
    state = {f"backbone.{name}": tensor for name, tensor in swin().items()}
    for name in (
        f"{DECODER}.input_proj.0.0.weight",
        f"{DECODER}.transformer.level_embed",
        f"{DECODER}.layer_1.weight",
        f"{DECODER}.mask_features.weight",
        "sem_seg_head.predictor.static_query.weight",
        "sem_seg_head.predictor.class_embed.weight",
    ):
        state[name] = torch.randn(4, 4)
    return state


def pretraining() -> State:
    """A few weights with the names of this project's pretraining."""
    state = {n: t for n, t in segmentation().items() if "predictor" not in n}
    return {**state, "denoising_head.conv.weight": torch.randn(4, 4)}


@cache
def hugging_face_mask2former() -> tuple[State, dict[str, Any]]:
    """Weights and config.json, with Hugging Face's image processor."""
    return saved(Mask2FormerForUniversalSegmentation(small_config(decoder_layers=2)))


@cache
def hugging_face_maskformer() -> tuple[State, dict[str, Any]]:
    """The same of MaskFormer."""
    return saved(maskformer(small=True))


# Format, file name -> state dict.
SMALL: dict[tuple[str, str], Callable[[], State]] = {
    ("swin", "swin.pth"): swin,
    ("resnet", "legacy.pth"): lambda: resnet("torchvision"),
    ("resnet", "timm_resnet/model.safetensors"): lambda: timm_model("test_resnet"),
    ("convnext", "timm_convnext/model.safetensors"): lambda: timm_model("test_convnext"),
    ("vit", "timm_vit/pytorch_model.bin"): lambda: timm_model("test_vit"),
    ("dinov2", "dinov2.pth"): dinov2,
    ("detectron2", "R-50.pkl"): lambda: resnet("detectron2"),
    ("detectron2", "caffe2.pkl"): caffe2_resnet,
    ("mask2former", "mask2former.pkl"): segmentation,
    ("ddep", "model_final.pth"): pretraining,
    ("hf-mask2former", "mask2former/model.safetensors"): lambda: hugging_face_mask2former()[0],
    ("hf-maskformer", "maskformer/model.safetensors"): lambda: hugging_face_maskformer()[0],
}

# Folder of a file -> the content of its config.json.
SETTINGS: dict[str, Callable[[], dict[str, Any]]] = {
    "timm_resnet": lambda: {"architecture": "test_resnet"},
    "timm_convnext": lambda: {"architecture": "test_convnext"},
    "timm_vit": lambda: {"architecture": "test_vit"},
    "mask2former": lambda: hugging_face_mask2former()[1],
    "maskformer": lambda: hugging_face_maskformer()[1],
}


def write(path: Path, state: State) -> None:
    """Write a checkpoint in the format of its name, with a config.json if there is one for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.parent.name in SETTINGS:
        (path.parent / "config.json").write_text(json.dumps(SETTINGS[path.parent.name]()))
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    elif path.suffix == ".pkl":
        arrays = {name: tensor.numpy() for name, tensor in state.items()}
        caffe2 = path.stem == "caffe2"
        data = arrays if caffe2 else {"model": arrays, "__author__": "them"}
        path.write_bytes(pickle.dumps(data, protocol=2 if caffe2 else 4))
    else:
        is_legacy = path.stem == "legacy"
        torch.save({"model": state}, path, _use_new_zipfile_serialization=not is_legacy)
