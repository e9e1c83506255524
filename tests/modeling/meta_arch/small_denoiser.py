"""Configs of small denoising pretrainers, and input for them."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode, get_cfg

from ddep.config import add_ddep_config
from ddep.noise import add_noise


def noisy_input(seed: int, height: int, width: int, sigma: float, formulation: str = "scaled"):
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, height, width, generator=generator)
    return {
        "image": add_noise(clean, noise, sigma, formulation),
        "noise": noise,
        "sigma": sigma,
        "clean": clean,
    }


def small_config() -> CfgNode:
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "DenoisingPretrainer"
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    head = cfg.MODEL.SEM_SEG_HEAD
    head.PIXEL_DECODER_NAME = "MSDeformAttnPixelDecoder"
    head.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    head.CONVS_DIM = head.MASK_DIM = 32
    head.TRANSFORMER_ENC_LAYERS = 1
    cfg.MODEL.MASK_FORMER.NHEADS = 4
    cfg.MODEL.MASK_FORMER.DIM_FEEDFORWARD = 32
    cfg.MODEL.MASK_FORMER.DROPOUT = 0.0
    return cfg


def swin_config() -> CfgNode:
    cfg = small_config()
    cfg.MODEL.BACKBONE.NAME = "D2SwinTransformer"
    cfg.MODEL.SWIN.EMBED_DIM = 8
    cfg.MODEL.SWIN.DEPTHS = [1, 1, 1, 1]
    cfg.MODEL.SWIN.NUM_HEADS = [1, 1, 1, 1]
    return cfg
